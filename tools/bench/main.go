package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Where the repository has what is measured, from its root.
const (
	noladDefault   = "bin/nolad"
	guestDefault   = "testdata/guests/small/small.wasm"
	kitchenDefault = "testdata/guests/kitchen.wasm"
	dataDefault    = "bin/bench"
)

const usage = `bench measures this machine, the product, and other products beside it.

  bench limits  [flags]           what the machine itself can do
  bench run     [flags]           the product, row by row, beside the limits
  bench herd    [flags]           a million schedules due at one instant
  bench hostile [flags]           calls beside each hostile guest, which is in another namespace
  bench peers   [flags]           other products, taking turns with ours
  bench cassandra [flags]         the product on a Cassandra cluster
  bench cluster [flags]           three servers on three nodes of Cassandra
  bench compare OLD.json NEW.json two result files side by side

bench COMMAND -h lists the flags. docs/benchmarks.md says how to read the tables.
`

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	cancel()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted, nothing is left behind:", err)
		os.Exit(1)
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "%v\n\n%s", err, usage)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("bench: which command, and with what?")

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	command, args := args[0], args[1:]
	switch command {
	case "limits":
		return limitsCommand(ctx, args)
	case "run":
		return runCommand(ctx, args)
	case "herd":
		return herdCommand(ctx, args)
	case "hostile":
		return hostileCommand(ctx, args)
	case "peers":
		return peersCommand(ctx, args)
	case "cassandra":
		return cassandraCommand(ctx, args)
	case "cluster":
		return clusterCommand(ctx, args)
	case "compare":
		return compareCommand(args)
	case echoCommand:
		if len(args) != 1 {
			return errUsage
		}
		return serveEcho(args[0])
	default:
		return fmt.Errorf("%w There is no command %q", errUsage, command)
	}
}

// flags that run and peers have in common.
type flags struct {
	*flag.FlagSet
	b         bench
	rows      string
	noladArgs string
	data      string
	out       string
}

func newFlags(command string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet("bench "+command, flag.ContinueOnError)}
	f.StringVar(&f.rows, "rows", "", "measure only rows whose name matches this regular expression")
	f.DurationVar(&f.b.each, "d", 3*time.Second, "how long a slice of load lasts")
	f.IntVar(&f.b.rounds, "rounds", 3, "how often each row is measured")
	f.StringVar(&f.b.nolad, "nolad", noladDefault, "the server to measure; make build makes it")
	f.StringVar(&f.noladArgs, "nolad-args", "", "further flags of the server, separated by spaces")
	f.StringVar(&f.b.guest, "guest", guestDefault, "the small counter module")
	f.StringVar(&f.data, "data", dataDefault, "directory for temporary data; its disk is the one that is measured")
	f.StringVar(&f.out, "out", "", "result file to write (JSON)")
	return f
}

// Bounds of what a caller may ask for.
const (
	sliceMin  = 100 * time.Millisecond
	sliceMax  = time.Minute
	roundsMax = 100
)

func (f *flags) parse(args []string) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w %w", errUsage, err)
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%w %q is not a flag", errUsage, f.Arg(0))
	}
	var err error
	if f.b.rows, err = regexp.Compile(f.rows); err != nil {
		return fmt.Errorf("%w -rows: %w", errUsage, err)
	}
	if f.b.each < sliceMin || f.b.each > sliceMax {
		return fmt.Errorf("%w -d is %s, it must lie between %s and %s", errUsage, f.b.each, sliceMin, sliceMax)
	}
	if f.b.rounds < 1 || f.b.rounds > roundsMax {
		return fmt.Errorf("%w -rounds is %d, it must lie between 1 and %d", errUsage, f.b.rounds, roundsMax)
	}
	if f.b.pprof != "" {
		if err := os.MkdirAll(f.b.pprof, 0o755); err != nil {
			return err
		}
	}
	f.b.noladArgs = strings.Fields(f.noladArgs)
	f.b.log = os.Stderr
	for _, need := range []struct{ file, how string }{{f.b.nolad, "make build makes it"}, {f.b.guest, "-guest names it"}} {
		if _, err := os.Stat(need.file); err != nil {
			return fmt.Errorf("%w; %s, and bench runs in the repository's root", err, need.how)
		}
	}
	return nil
}

// measure runs the blocks, prints the table, and writes the result file.
func (f *flags) measure(ctx context.Context, blocks []block) (err error) {
	if f.b.dir, err = tempDir(f.data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(f.b.dir)) }()
	r := result{
		Format: resultFormat, Time: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Commit: commitOf(),
		Slice: f.b.each.String(), Rounds: f.b.rounds,
	}
	r.Blocks, err = f.b.measure(ctx, blocks)
	if len(r.Blocks) == 0 {
		if err == nil {
			err = fmt.Errorf("no row to measure matches %q", f.rows)
		}
		return err
	}
	fmt.Println()
	r.print(os.Stdout)
	if f.out != "" {
		err = errors.Join(err, r.write(f.out))
	}
	if n := r.failures(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d rows have failed, see above", n))
	}
	return err
}

func runCommand(ctx context.Context, args []string) error {
	f := newFlags("run")
	f.StringVar(&f.b.kitchen, "kitchen", "", "the module that misbehaves (default: "+kitchenDefault+" if it exists)")
	f.StringVar(&f.b.pprof, "pprof", "", "directory for CPU profiles of the server, one per row")
	if err := f.parse(args); err != nil {
		return err
	}
	if _, err := os.Stat(kitchenDefault); err == nil && f.b.kitchen == "" {
		f.b.kitchen = kitchenDefault
	}
	return f.measure(ctx, []block{callsBlock(), schedulesBlock(), herdBlock(herdSmall), serverBlock()})
}

func limitsCommand(ctx context.Context, args []string) (err error) {
	f := flag.NewFlagSet("bench limits", flag.ContinueOnError)
	each := f.Duration("d", time.Second, "how long each limit is measured")
	data := f.String("data", dataDefault, "directory for temporary data; its disk is the one that is measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *each < sliceMin || *each > sliceMax {
		return fmt.Errorf("%w -d is %s, it must lie between %s and %s", errUsage, *each, sliceMin, sliceMax)
	}
	dir, err := tempDir(*data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := newMachineLimits(ctx, dir, *each)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	found, err := l.measure(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, n := range limitNames {
		fmt.Fprintf(w, "%s\t%s\n", n, figure(found[n], limitUnits[n]))
	}
	return w.Flush()
}

func compareCommand(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w compare takes two result files", errUsage)
	}
	older, err := readResult(filepath.Clean(args[0]))
	if err != nil {
		return err
	}
	newer, err := readResult(filepath.Clean(args[1]))
	if err != nil {
		return err
	}
	compare(os.Stdout, older, newer)
	return nil
}
