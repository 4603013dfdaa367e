package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
)

// Defaults of the global flags.
const (
	serverDefault  = "http://127.0.0.1:7466"
	timeoutDefault = 30 * time.Second
)

// cli is one run of the program: what surrounds it, and the global flags.
type cli struct {
	env         func(name string) string
	in          io.Reader
	out, errOut io.Writer
	// A person sits at the other end of the stream.
	inIsTerminal, outIsTerminal, errIsTerminal bool

	now   func() time.Time
	local *time.Location // in which times are shown and read

	server     string
	namespace  string
	namespaced bool // --namespace was given
	output     format
	token      string
	tokenFile  string
	timeout    time.Duration
	timed      bool // --timeout was given
	yes        bool

	dialed  *client.Client // the server, once a command needs it
	offline bool           // no server is asked, so that ours is the only clock
}

func (c *cli) rootCommand() *cobra.Command {
	root := c.group("nolactl", "Work with the actors, modules and schedules of a NOLA server",
		`nolactl calls a NOLA server. Start one on this machine with "nolad dev".

An actor is written TYPE/ID, where the type is the name of its module and the id
is everything behind the first slash. NAMESPACE:TYPE/ID names one of another
namespace than that of -n.

Environment: NOLA_SERVER, NOLA_NAMESPACE and NOLA_TOKEN stand in for the flags of
those names. SSL_CERT_FILE names the authorities trusted for https servers.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 unavailable,
6 conflict, 7 guest error.`,
		`nolactl invoke counter/alice inc
nolactl schedule create beep --target counter/alice --op inc --every 1s`)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Sprintf("run `%s --help` for its flags", cmd.CommandPath()), "%s", err)
	})
	f := root.PersistentFlags()
	f.StringVar(&c.server, "server", "", "URL of the server (env NOLA_SERVER; default "+serverDefault+")")
	f.StringVarP(&c.namespace, "namespace", "n", "", "namespace (env NOLA_NAMESPACE; default "+nola.DefaultNamespace+")")
	f.VarP(&c.output, "output", "o", "table, json, jsonl, yaml or name")
	f.StringVar(&c.token, "token", "", "bearer token (env NOLA_TOKEN; others on this machine can see flags)")
	f.StringVar(&c.tokenFile, "token-file", "", "file that holds the bearer token")
	f.Var(durationFlag{&c.timeout}, "timeout", "how long to wait for an answer (default 30s)")
	f.BoolVarP(&c.yes, "yes", "y", false, "do not ask before removing something")
	complete(root, "output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return formats, cobra.ShellCompDirectiveNoFileComp
	})
	complete(root, "namespace", c.completeNamespaces)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return c.settle(cmd) }

	root.AddCommand(
		c.invokeCommand(), c.castCommand(), c.invocationCommand(),
		c.actorCommand(), c.timerCommand(), c.logsCommand(), c.moduleCommand(), c.scheduleCommand(), c.calendarCommand(),
		c.namespaceCommand(), c.nodeCommand(), c.shardCommand(), c.laneCommand(), c.placementCommand(), c.locateCommand(), c.topCommand(), c.timeCommand(), c.backupCommand(),
		c.versionCommand(), c.completionCommand(),
	)
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Example = examples("nolactl help invoke\nnolactl help schedule create")
		}
	}
	return root
}

// settle fills what the flags left open from the environment, and checks it.
func (c *cli) settle(cmd *cobra.Command) error {
	flags := cmd.Flags()
	c.namespaced = flags.Changed("namespace")
	c.timed = flags.Changed("timeout")
	if c.server == "" {
		c.server = c.env("NOLA_SERVER")
	}
	if c.server == "" {
		c.server = serverDefault
	}
	if !c.namespaced {
		c.namespace = c.env("NOLA_NAMESPACE")
	}
	if c.namespace == "" {
		c.namespace = nola.DefaultNamespace
	}
	if err := nola.ValidateName("namespace", c.namespace); err != nil {
		return usage("", "%s", err)
	}
	if !c.timed {
		c.timeout = timeoutDefault
	}
	if c.timeout <= 0 {
		return usage("", "--timeout is %s, it must be positive", c.timeout)
	}
	return nil
}

// group makes a command that only holds others.
func (c *cli) group(use, short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    long,
		Example: examples(example),
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := fmt.Sprintf("run `%s --help` for its commands", cmd.CommandPath())
			cmd.SuggestionsMinimumDistance = 2
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf("did you mean `%s %s`?", cmd.CommandPath(), near[0])
			}
			return usage(hint, "%q is no command of %s", args[0], cmd.CommandPath())
		},
	}
}

// takes checks the number of arguments and names them in the refusal. want is
// the argument part of Use: words in brackets may be left out.
func takes(want string) cobra.PositionalArgs {
	least, most := 0, 0
	for word := range strings.FieldsSeq(want) {
		most++
		if !strings.HasPrefix(word, "[") {
			least++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		if least <= len(args) && len(args) <= most {
			return nil
		}
		hint := fmt.Sprintf("run `%s --help` for examples", cmd.CommandPath())
		if most == 0 {
			return usage(hint, "%s takes no arguments, got %q", cmd.CommandPath(), args)
		}
		if len(args) > most {
			return usage(hint, "%s takes %s; %q is too much (put quotes around an argument that holds spaces)", cmd.CommandPath(), want, args[most])
		}
		missing := strings.Fields(want)[len(args)]
		return usage(hint, "%s takes %s; %s is missing", cmd.CommandPath(), want, missing)
	}
}

// leaf makes a command that does something. use is its name and its arguments.
func leaf(use, short, long, example string, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	_, want, _ := strings.Cut(use, " ")
	return &cobra.Command{
		Use:                   use + " [flags]",
		Short:                 short,
		Long:                  long,
		Example:               examples(example),
		Args:                  takes(want),
		RunE:                  run,
		DisableFlagsInUseLine: true,
	}
}

// examples indents the lines of an example as help shows them.
func examples(s string) string {
	return "  " + strings.ReplaceAll(s, "\n", "\n  ")
}

// complete sets how the values of a flag are completed. It fails only for a flag
// that does not exist, or twice for one.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(fmt.Sprintf("nolactl: completion of --%s of %s: %v", flag, cmd.CommandPath(), err))
	}
}
