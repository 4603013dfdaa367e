// Cassandra starts and stops a real Cassandra on this machine. It runs on in the
// background until it is stopped.
//
//	go run ./tools/cassandra/cmd start -nodes 3 -keep
//	go run ./tools/cassandra/cmd stop
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nolaproject/nola/tools/cassandra"
)

const (
	cqlPort = 9042 // where clients expect it
	usage   = "say start or stop, and -help after it for the flags"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cassandra:", err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("no command; %s", usage)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	config := cassandra.Config{Detached: true}
	flags.StringVar(&config.Dir, "dir", filepath.Join("bin", "cassandra"), "directory of its data, configuration and logs")
	switch args[0] {
	case "start":
		flags.IntVar(&config.Nodes, "nodes", 1, "1 or 3, on 127.0.0.1 to 127.0.0.3")
		flags.BoolVar(&config.Keep, "keep", false, "start with the data of the last run")
		flags.IntVar(&config.CQLPort, "port", cqlPort, "port for clients; 0 for a free one")
		flags.IntVar(&config.HeapMiB, "heap", cassandra.HeapMiBDefault, "heap of each node in MiB")
	case "stop":
	default:
		return fmt.Errorf("unknown command %q; %s", args[0], usage)
	}
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag of %s", flags.Arg(0), args[0])
	}
	if args[0] == "stop" {
		stopped, err := cassandra.StopDir(config.Dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "cassandra: stopped %d nodes of %s\n", stopped, config.Dir)
		return nil
	}
	began := time.Now()
	cluster, err := cassandra.Start(ctx, config)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cassandra: %s answers at %s after %.1f s; data and logs in %s\n",
		cassandra.Version, strings.Join(cluster.Addresses(), ","), time.Since(began).Seconds(), config.Dir)
	return nil
}
