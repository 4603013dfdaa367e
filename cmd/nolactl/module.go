package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// Limits of what is pushed.
const (
	moduleBytesMax = 64 << 20
	fileBytesMax   = 4 << 20 // a manifest or a schedule
)

// pushTimeoutDefault is how long a push may take: a big module is uploaded and
// compiled in it.
const pushTimeoutDefault = 5 * time.Minute

func (c *cli) moduleCommand() *cobra.Command {
	cmd := c.group("module", "Push the modules that actors run",
		`A module is a WebAssembly binary under a name. The name is the type of the actors
that run it. Every push makes a version, and the newest becomes the default one.`,
		`nolactl module push counter.wasm --name counter
nolactl module list`)
	cmd.AddCommand(
		c.modulePushCommand(), c.moduleListCommand(), c.moduleGetCommand(), c.moduleVersionsCommand(),
		c.moduleSetDefaultCommand(), c.moduleDeleteCommand(),
	)
	return cmd
}

func (c *cli) modulePushCommand() *cobra.Command {
	var name, manifest string
	cmd := leaf("push FILE", "Upload a module and make it the default version",
		`Upload a WebAssembly binary. It is checked and compiled before the command returns,
and then actors move to it: idle ones at their next start, busy ones between two
turns. Pushing the default version again changes nothing.

A manifest is a YAML or JSON file. All of it may be left out:

  readonly_operations: [get]
  operations: [inc, add, get]
  env: {GREETING: hello}
  capabilities: [KV-GET, KV-PUT]
  limits: {memory_bytes: 33554432, turn_timeout: 5s}`,
		`nolactl module push counter.wasm --name counter
nolactl module push counter.wasm --name counter --manifest manifest.yaml -o json`,
		func(cmd *cobra.Command, args []string) error {
			return c.pushModule(cmd.Context(), args[0], name, manifest)
		})
	cmd.Flags().StringVar(&name, "name", "", "name of the module (default the name of the file)")
	cmd.Flags().StringVar(&manifest, "manifest", "", "file that says how the module wants to be run")
	return cmd
}

func (c *cli) pushModule(ctx context.Context, file, name, manifest string) error {
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		if err := nola.ValidateName("name", name); err != nil {
			return usage("name the module with --name", "the module cannot be named after its file: %s", err)
		}
	}
	wasm, err := c.payloadOf(nil, file, moduleBytesMax)
	if err != nil {
		return err
	}
	req := &nolav1.PushModuleRequest{Namespace: c.namespace, Name: name, Wasm: wasm}
	if manifest != "" {
		req.Manifest = &nolav1.ModuleManifest{}
		if err := c.decodeFile(manifest, req.Manifest); err != nil {
			return err
		}
	}
	bar := &progress{c: c, what: "pushing " + name, total: int64(len(wasm))}
	r, err := c.dial(bar.watch())
	if err != nil {
		return err
	}
	if !c.timed {
		c.timeout = pushTimeoutDefault
	}
	res, err := ask(ctx, c.timeout, r.Modules.PushModule, req)
	bar.end()
	if err != nil {
		return err
	}
	return c.say(res, name, "module %s version %d, %s", name, res.Version, res.Digest)
}

// progress tells a person how much of an upload has been sent.
type progress struct {
	c     *cli
	what  string
	total int64
	last  time.Time
	shown bool
}

// Uploads below progressBytesMin are over before one has read about them;
// progressEvery is how often the line changes.
const (
	progressBytesMin = 1 << 20
	progressEvery    = 100 * time.Millisecond
)

// watch is what is told of sent bytes, nil where nobody would see it.
func (p *progress) watch() func(sent int64) {
	if !p.c.errIsTerminal || p.total < progressBytesMin {
		return nil
	}
	return func(sent int64) {
		now := p.c.now()
		sent = min(sent, p.total)
		if now.Sub(p.last) < progressEvery && sent < p.total {
			return
		}
		p.last, p.shown = now, true
		state := ""
		if sent == p.total {
			state = ", compiling"
		}
		fmt.Fprintf(p.c.errOut, "\r\x1b[K%s: %s of %s%s", p.what, bytesOf(sent), bytesOf(p.total), state)
	}
}

func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.c.errOut, "\r\x1b[K")
	}
}

func (c *cli) moduleListCommand() *cobra.Command {
	var limit int
	cmd := leaf("list", "List the modules of a namespace",
		`List the modules of a namespace in the order of their names.`,
		`nolactl module list
nolactl module list -o jsonl`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.Module]{
				what: "modules",
				head: []string{"NAME", "DEFAULT", "LATEST"},
				row: func(m *nolav1.Module) []string {
					return []string{m.Name, fmt.Sprint(m.DefaultVersion), fmt.Sprint(m.LatestVersion)}
				},
				name: func(m *nolav1.Module) string { return m.Name },
				wrap: func(all []*nolav1.Module) proto.Message { return &nolav1.ListModulesResponse{Modules: all} },
				fetch: func(size int32, token string) ([]*nolav1.Module, string, error) {
					req := &nolav1.ListModulesRequest{Namespace: c.namespace, PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Modules.ListModules, req)
					return res.GetModules(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	return cmd
}

func (c *cli) moduleGetCommand() *cobra.Command {
	var version uint64
	cmd := leaf("get NAME", "Show a module and one of its versions",
		`Show a module with its default version, or with another one, and the manifest of
that version.`,
		`nolactl module get counter
nolactl module get counter --version 1 -o yaml`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.GetModuleRequest{Namespace: c.namespace, Name: args[0], Version: version}
			res, err := ask(cmd.Context(), c.timeout, r.Modules.GetModule, req)
			if err != nil {
				return err
			}
			return c.show(res, res.Module.GetName(), func() error { return c.describeModule(res) })
		})
	cmd.Flags().Uint64Var(&version, "version", 0, "version to show (default the default version)")
	cmd.ValidArgsFunction = c.completeModules
	return cmd
}

func (c *cli) describeModule(m *nolav1.GetModuleResponse) error {
	d := c.details()
	v, manifest := m.Version, m.Version.GetManifest()
	d.fact("Module", m.Module.GetName())
	d.fact("Namespace", m.Module.GetNamespace())
	d.fact("Default version", fmt.Sprint(m.Module.GetDefaultVersion()))
	d.fact("Latest version", fmt.Sprint(m.Module.GetLatestVersion()))
	d.fact("Version shown", fmt.Sprint(v.GetVersion()))
	d.fact("Digest", v.GetDigest())
	d.fact("Size", bytesOf(v.GetSizeBytes()))
	d.fact("Created", c.when(v.GetCreated()))
	if ops := manifest.GetOperations(); len(ops) > 0 {
		d.fact("Operations", strings.Join(ops, ", "))
	}
	if ops := manifest.GetReadonlyOperations(); len(ops) > 0 {
		d.fact("Readonly", strings.Join(ops, ", "))
	}
	if caps := manifest.GetCapabilities(); len(caps) > 0 {
		d.fact("Capabilities", strings.Join(caps, ", "))
	} else {
		d.fact("Capabilities", "all (default)")
	}
	if env := manifest.GetEnv(); len(env) > 0 {
		d.fact("Environment", labelsText(env))
	}
	d.fact("Limits", limitsText(manifest.GetLimits())...)
	return d.flush()
}

// limitsText is every limit that a manifest sets, a line each.
func limitsText(l *nolav1.ModuleLimits) []string {
	var set []string
	add := func(name string, value uint64, text string) {
		if value > 0 {
			set = append(set, name+" "+text)
		}
	}
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	add("memory", l.GetMemoryBytes(), bytesOf(l.GetMemoryBytes()))
	add("steps per turn", l.GetStepsPerTurn(), count(l.GetStepsPerTurn()))
	if t := l.GetTurnTimeout(); t != nil {
		set = append(set, "turn timeout "+exactly(t.AsDuration()))
	}
	add("host calls", uint64(l.GetHostCalls()), count(uint64(l.GetHostCalls())))
	add("log", uint64(l.GetLogBytes()), bytesOf(uint64(l.GetLogBytes())))
	add("casts", uint64(l.GetCasts()), count(uint64(l.GetCasts())))
	add("reply", uint64(l.GetReplyBytes()), bytesOf(uint64(l.GetReplyBytes())))
	add("table elements", uint64(l.GetTableElements()), count(uint64(l.GetTableElements())))
	add("call depth", uint64(l.GetCallDepth()), count(uint64(l.GetCallDepth())))
	if set == nil {
		set = []string{"those of the server (default)"}
	}
	return set
}

func (c *cli) moduleVersionsCommand() *cobra.Command {
	var limit int
	cmd := leaf("versions NAME", "List the versions of a module",
		`List the versions of a module, the newest first.`,
		`nolactl module versions counter
nolactl module versions counter --limit 1 -o name`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.ModuleVersion]{
				what: "versions",
				head: []string{"VERSION", "SIZE", "CREATED", "DIGEST"},
				row: func(v *nolav1.ModuleVersion) []string {
					return []string{fmt.Sprint(v.Version), bytesOf(v.SizeBytes), c.when(v.Created), v.Digest}
				},
				name: func(v *nolav1.ModuleVersion) string { return fmt.Sprint(v.Version) },
				wrap: func(all []*nolav1.ModuleVersion) proto.Message {
					return &nolav1.ListModuleVersionsResponse{Versions: all}
				},
				fetch: func(size int32, token string) ([]*nolav1.ModuleVersion, string, error) {
					req := &nolav1.ListModuleVersionsRequest{Namespace: c.namespace, Name: args[0], PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Modules.ListModuleVersions, req)
					return res.GetVersions(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.ValidArgsFunction = c.completeModules
	return cmd
}

func (c *cli) moduleSetDefaultCommand() *cobra.Command {
	cmd := leaf("set-default NAME VERSION", "Choose the version that actors run",
		`Make another version the default one, for example to go back to an earlier one.`,
		`nolactl module set-default counter 1
nolactl module set-default counter 2 -o json`,
		func(cmd *cobra.Command, args []string) error {
			version, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil || version == 0 {
				return usage("see them with `nolactl module versions "+quote(args[0])+"`", "%q is no version: want a number from 1", args[1])
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.SetDefaultVersionRequest{Namespace: c.namespace, Name: args[0], Version: version}
			res, err := ask(cmd.Context(), c.timeout, r.Modules.SetDefaultVersion, req)
			if err != nil {
				return err
			}
			return c.say(res.Module, args[0], "module %s runs version %d", args[0], res.Module.GetDefaultVersion())
		})
	cmd.ValidArgsFunction = c.completeModules
	return cmd
}

func (c *cli) moduleDeleteCommand() *cobra.Command {
	var force bool
	cmd := leaf("delete NAME", "Remove a module with all its versions",
		`Remove a module with all its versions. One that has actors is removed only with
--force; the state of those actors stays.`,
		`nolactl module delete counter --force --yes
nolactl module delete scratch --yes -o name`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			if err := c.confirm("delete module %s with all its versions", args[0]); err != nil {
				return err
			}
			req := &nolav1.DeleteModuleRequest{Namespace: c.namespace, Name: args[0], Force: force}
			res, err := ask(cmd.Context(), c.timeout, r.Modules.DeleteModule, req)
			if err != nil {
				return err
			}
			return c.say(res, args[0], "module %s deleted", args[0])
		})
	cmd.Flags().BoolVar(&force, "force", false, "also where actors run it")
	cmd.ValidArgsFunction = c.completeModules
	return cmd
}
