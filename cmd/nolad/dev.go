package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/proto/nola/v1/nolav1connect"
	"github.com/nolaproject/nola/server"
	"github.com/nolaproject/nola/shard"
)

// The schedule that a fresh data directory gets, if the module is there.
const (
	demoSchedule  = "demo"
	demoModule    = "ticker"
	demoActor     = "demo"
	demoOperation = "tick"
	demoEvery     = 5 * time.Second
)

// What --time may be.
const (
	timeReal    = "real"
	timeVirtual = "virtual"
)

// dev is what `nolad dev` is told.
type dev struct {
	listen    string
	dataDir   string
	ephemeral bool
	backupDir string
	modules   string
	demo      bool
	logLevel  string
	admin     string
	time      string
}

func devCommand() *cobra.Command {
	var d dev
	c := &cobra.Command{
		Use:   "dev",
		Short: "Serve for development on this machine",
		Long: `Serve for development on this machine: one process, no other service, reachable
from this machine alone. State stays in the data directory; --ephemeral keeps it
in memory, and it is gone when the server ends.

Modules (*.wasm) in the directory of --modules are pushed at the start, each
under the name of its file, with the manifest NAME.yaml if that lies beside it;
unless told, the directory is "modules" beside this program. A module or manifest
that has changed becomes the next version. A fresh data directory also gets a schedule, "demo", that calls
ticker/demo every 5 s. Every firing prints a line.

With --time=virtual, time begins at the present and stands still until it is moved:
"nolactl time advance 30d" fires all that is due within 30 days, each at its own
time. It needs --ephemeral, for what is due in the future of one run would not be
in the next.`,
		Example: `nolad dev
nolad dev --ephemeral --time virtual
nolad dev --ephemeral --listen 127.0.0.1:0 --modules ./bin/modules`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return d.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&d.listen, "listen", listenDefault, "loopback address to serve on, HOST:PORT; port 0 takes a free one")
	f.StringVar(&d.dataDir, "data-dir", dataDirDefault, "directory that keeps everything")
	f.StringVar(&d.backupDir, "backup-dir", "", "directory for backups (default: that of --data-dir with -backups behind)")
	f.BoolVar(&d.ephemeral, "ephemeral", false, "keep everything in memory")
	f.StringVar(&d.modules, "modules", "", "directory of modules to push (default: \"modules\" beside this program, if it exists)")
	f.BoolVar(&d.demo, "demo", true, "give a fresh data directory the schedule \"demo\"")
	f.StringVar(&d.admin, "admin-listen", "", "loopback address for /metrics and /debug/pprof (default: none)")
	f.StringVar(&d.time, "time", timeReal, `"real", or "virtual": time stands still until "nolactl time advance" moves it`)
	f.StringVar(&d.logLevel, "log-level", "warn", "debug, info, warn or error")
	return c
}

// config is the server's configuration.
func (d *dev) config() (config, error) {
	c := config{Listen: d.listen, AdminListen: d.admin, DataDir: d.dataDir, BackupDir: d.backupDir, Log: logConfig{Level: d.logLevel}}.withDefaults()
	setDefault(&c.BackupDir, filepath.Clean(c.DataDir)+"-backups")
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && !isLoopback(host) {
		return c, usageError{fmt.Errorf("nolad dev serves this machine alone, and %s can be reached by others: listen on 127.0.0.1, or use nolad serve", c.Listen)}
	}
	if err := c.validate(); err != nil {
		return c, err
	}
	switch d.time {
	case timeReal:
	case timeVirtual:
		if !d.ephemeral {
			return c, usageError{errors.New("--time=virtual needs --ephemeral: a data directory that has seen the future fires nothing until that has come")}
		}
		c.clock = shard.NewVirtualClock(time.Now().Truncate(time.Second).UTC())
	default:
		return c, usageError{fmt.Errorf("--time=%s: want %s or %s", d.time, timeReal, timeVirtual)}
	}
	if d.ephemeral {
		c.Store = storeMemory
	}
	return c, nil
}

func (d *dev) run(ctx context.Context, out, errOut io.Writer) (err error) {
	began := time.Now()
	cfg, err := d.config()
	if err != nil {
		return err
	}
	files, err := d.moduleFiles()
	if err != nil {
		return err
	}
	lines := printFirings(out)
	defer lines.close() // after the server has stopped
	r, err := start(ctx, cfg, newLogger(cfg.Log, errOut), lines.tell)
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(errOut, "stopping: nothing new is taken in, what runs ends; again to end at once")
		err = errors.Join(err, r.stop())
	}()
	where := "in memory, gone when the server ends (--ephemeral)"
	if !d.ephemeral {
		dir, err := filepath.Abs(cfg.DataDir)
		if err != nil {
			return err
		}
		where = dir + " (kept; delete it to begin anew)"
	}
	fmt.Fprintf(out, "NOLA %s is up after %s\n\n  URL   %s\n  data  %s\n\n", buildVersion(), rough(time.Since(began)), r.url(), where)
	if cfg.clock != nil {
		fmt.Fprintf(out, "  time  %s, and stands still: nolactl time advance 1h moves it\n\n", cfg.clock.Now().Format(time.RFC3339))
	}
	if err := d.furnish(ctx, out, r, files); err != nil && ctx.Err() == nil {
		return err
	}
	return r.wait(ctx)
}

// moduleFiles are the modules to push, in the order of their names.
func (d *dev) moduleFiles() ([]string, error) {
	dir := d.modules
	if dir == "" {
		program, _ := os.Executable() // if nobody knows, there is no directory beside it
		if dir = filepath.Join(filepath.Dir(program), "modules"); program == "" || !isDir(dir) {
			return nil, nil
		}
	} else if !isDir(dir) {
		return nil, usageError{fmt.Errorf("--modules %s: there is no such directory", dir)}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.wasm"))
	if err != nil {
		return nil, usageError{fmt.Errorf("--modules %s: %w", dir, err)}
	}
	slices.Sort(files)
	return files, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// furnish pushes the modules, makes the demo schedule in a fresh store, and
// tells what to try.
func (d *dev) furnish(ctx context.Context, out io.Writer, r *running, files []string) error {
	catalog := persistence.Catalog{Store: r.store}
	old, err := catalog.Modules(ctx, nola.DefaultNamespace, "", 1)
	if err != nil {
		return err
	}
	fresh := len(old) == 0
	var names []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".wasm")
		said, err := pushFile(ctx, r.Modules(), catalog, name, file)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(out, "module %s was not pushed: %s\n", name, indent(err.Error()))
			continue
		}
		names = append(names, name)
		fmt.Fprintln(out, said)
	}
	if fresh && d.demo && slices.Contains(names, demoModule) {
		if err := r.createDemo(ctx); err != nil {
			fmt.Fprintf(out, "the schedule %s was not made: %v\n", demoSchedule, err)
		} else {
			fmt.Fprintf(out, "schedule %s calls %s/%s %s every %s\n", demoSchedule, demoModule, demoActor, demoOperation, demoEvery)
		}
	}
	fmt.Fprintln(out, tryNext(r, names, d.listen == listenDefault))
	return nil
}

// pushFile pushes a module with the manifest beside it, unless both are those of
// the default version already, and makes it ready to run.
func pushFile(ctx context.Context, modules *server.Modules, catalog persistence.Catalog, name, file string) (string, error) {
	began := time.Now()
	code, err := readModule(file)
	if err != nil {
		return "", err
	}
	manifest, err := readManifest(manifestFile(file))
	if err != nil {
		return "", err
	}
	old, _, err := catalog.Module(ctx, nola.DefaultNamespace, name)
	if err != nil {
		return "", err
	}
	rec, err := modules.Push(ctx, nola.DefaultNamespace, name, code, manifest)
	if err != nil {
		return "", err
	}
	if rec.Version == old.Default {
		return fmt.Sprintf("module %s version %d is unchanged", name, rec.Version), nil
	}
	return fmt.Sprintf("module %s version %d pushed (%s)", name, rec.Version, rough(time.Since(began))), nil
}

func readModule(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > server.ModuleBytesMax {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", file, info.Size(), server.ModuleBytesMax)
	}
	code, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: give the user that runs nolad the right to read it", err)
	}
	return code, err
}

// createDemo makes the demo schedule, through the front door.
func (r *running) createDemo(ctx context.Context) error {
	api := nolav1connect.NewScheduleServiceClient(http.DefaultClient, r.url())
	_, err := api.CreateSchedule(ctx, connect.NewRequest(&nolav1.CreateScheduleRequest{
		RequestId: demoSchedule,
		Schedule: &nolav1.Schedule{
			ScheduleId: demoSchedule,
			Target:     &nolav1.ScheduleTarget{Actor: &nolav1.ActorRef{Type: demoModule, Id: demoActor}, Operation: demoOperation},
			Spec:       &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{{Every: durationpb.New(demoEvery)}}},
		},
	}))
	if connect.CodeOf(err) == connect.CodeAlreadyExists {
		return nil
	}
	return err
}

// tryNext is what a new user may type. usual says that nolactl needs no --server.
func tryNext(r *running, names []string, usual bool) string {
	ctl := "nolactl"
	if program, err := os.Executable(); err == nil {
		if _, err := os.Stat(filepath.Join(filepath.Dir(program), "nolactl")); err == nil {
			ctl = filepath.Join(relative(filepath.Dir(program)), "nolactl")
		}
	}
	if !usual {
		ctl += " --server " + r.url()
	}
	var b strings.Builder
	b.WriteString("\nTry, in another terminal:\n\n")
	try := func(line string) { b.WriteString("  " + line + "\n") }
	switch {
	case slices.Contains(names, "counter"):
		try(ctl + " invoke counter/alice inc")
		try("curl -s " + r.url() + "/v1/default/counter/alice/inc -d ''")
		try(ctl + " schedule create tick --target counter/alice --op inc --every 1s")
		try(ctl + " schedule history tick")
		try(ctl + " actor state counter/alice")
	case len(names) > 0:
		try(ctl + " module list")
		try(ctl + " invoke " + names[0] + "/alice OPERATION")
	default:
		try(ctl + " module push counter.wasm --name counter")
		try(ctl + " invoke counter/alice inc")
	}
	b.WriteString("\nStop with Ctrl-C.\n")
	return b.String()
}

// relative is dir as people would write it from where they are.
func relative(dir string) string {
	here, err := os.Getwd()
	if err != nil {
		return dir
	}
	rel, err := filepath.Rel(here, dir)
	if err != nil || strings.HasPrefix(rel, "..") {
		return dir
	}
	return rel
}
