package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // schedules name zones; not every machine has their data

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		s := <-signals
		fmt.Fprintf(os.Stderr, "nolad: ended at once by a second signal (%s); what was acknowledged is durable\n", s)
		os.Exit(exitFailure)
	}()
	if code := run(ctx, os.Args[1:], os.Stdout, os.Stderr); code != 0 {
		os.Exit(code)
	}
}

// usageError is a wrong command line or configuration.
type usageError struct{ error }

// run obeys one command line until it is done or ctx ends, and returns the exit
// code.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(errOut, "nolad:", explain(err))
	var wrong usageError
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailure
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "nolad",
		Short:         "The NOLA server: durable actors and durable schedules",
		Long:          "The NOLA server: durable actors and durable schedules.\n\nUse \"nolad dev\" on your own machine, and \"nolad serve\" where others depend on it.",
		Example:       "nolad dev\nnolad serve --config /etc/nola/nolad.yaml",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.AddCommand(devCommand(), serveCommand(), backupCommand(), restoreCommand(), doctorCommand(), schemaCommand(), versionCommand())
	for _, c := range append(root.Commands(), root) {
		c.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
			return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
		})
		if c.Args != nil {
			check := c.Args
			c.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
				}
				return nil
			}
		}
	}
	return root
}

// indent puts each line of a long text behind the first under the program's name.
func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }
