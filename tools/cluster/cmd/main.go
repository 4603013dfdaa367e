// Cluster starts a Cassandra and several servers that share it on this machine,
// pushes the example modules, says what to try, and stops everything when it is
// interrupted.
//
//	go run ./tools/cluster/cmd -nodes 3
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/nolaproject/nola/tools/cassandra"
	"github.com/nolaproject/nola/tools/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(out)
	store := cassandra.Config{}
	config := cluster.Config{}
	flags.StringVar(&config.Dir, "dir", filepath.Join("bin", "cluster"), "directory of its data, configurations and logs")
	flags.IntVar(&store.Nodes, "nodes", 1, "nodes of the Cassandra: 1 or 3, on 127.0.0.1 to 127.0.0.3")
	flags.BoolVar(&store.Keep, "keep", false, "start with the data of the last run")
	flags.IntVar(&config.Servers, "servers", 3, "servers of ours")
	flags.IntVar(&config.Port, "port", 7466, "port of the first server for clients, the next has one ten higher; 0 for free ones")
	bin := flags.String("bin", "bin", "directory of nolad, nolactl and modules/")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	if _, err := os.Stat(filepath.Join(config.Dir, "cassandra", "cluster.json")); err != nil {
		store.Keep = false // nothing to keep
	}
	store.Dir, config.Program = filepath.Join(config.Dir, "cassandra"), filepath.Join(*bin, "nolad")
	fmt.Fprintf(out, "cluster: starting Cassandra %s, %d nodes; this takes some seconds\n", cassandra.Version, store.Nodes)
	db, err := cassandra.Start(ctx, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Stop()) }()
	config.CQL = db.Addresses()
	c, err := cluster.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	ctl := filepath.Join(*bin, "nolactl")
	url := c.Servers()[0].URL()
	if err := push(ctx, ctl, url, filepath.Join(*bin, "modules")); err != nil {
		return err
	}
	say(out, ctl, config.CQL, c.Servers())
	var watchers sync.WaitGroup
	defer watchers.Wait()
	for _, s := range c.Servers() {
		watchers.Go(func() { watch(ctx, out, s, config.Program) })
	}
	<-ctx.Done()
	fmt.Fprintln(out, "cluster: stopping")
	return nil
}

// watch tells when a server ends that nobody has stopped.
func watch(ctx context.Context, out io.Writer, s *cluster.Server, program string) {
	select {
	case <-ctx.Done():
	case <-s.Ended():
		fmt.Fprintf(out, "cluster: %s has ended; this starts it again: %s serve --config %s\n", s.Name(), program, s.Config())
	}
}

// push pushes the modules of a directory, each with its manifest beside it.
func push(ctx context.Context, ctl, url, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.wasm"))
	if err != nil {
		return err
	}
	for _, file := range files {
		args := []string{"--server", url, "module", "push", file}
		if manifest := strings.TrimSuffix(file, ".wasm") + ".yaml"; exists(manifest) {
			args = append(args, "--manifest", manifest)
		}
		if text, err := exec.CommandContext(ctx, ctl, args...).CombinedOutput(); err != nil { //nolint:gosec // the caller names the program
			return fmt.Errorf("push %s: %w; nolactl said:\n%s", file, err, text)
		}
	}
	return nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// say tells what there is and what to try.
func say(out io.Writer, ctl string, cql []string, servers []*cluster.Server) {
	fmt.Fprintf(out, "\nCassandra at %s, and servers:\n", strings.Join(cql, ", "))
	for _, s := range servers {
		fmt.Fprintf(out, "  %s  %s  process %-8d metrics %s/metrics  log %s\n", s.Name(), s.URL(), s.PID(), s.Admin(), s.Log())
	}
	first, last := servers[0], servers[len(servers)-1]
	fmt.Fprintf(out, `
Try, in a second terminal:
  %[1]s --server %[2]s node list
  %[1]s --server %[2]s invoke counter/alice inc
  %[1]s --server %[3]s invoke counter/alice inc     # by way of another: the same actor
  %[1]s --server %[2]s schedule create tick --target counter/alice --op inc --every 1s
  %[1]s --server %[2]s locate counter/alice
  kill -9 %[4]d                                                    # %[5]s; its shards move within some 4 s
  %[1]s --server %[2]s node list
  %[1]s --server %[2]s invoke counter/alice get
Ctrl-C stops everything.

`, ctl, first.URL(), last.URL(), last.PID(), last.Name())
}
