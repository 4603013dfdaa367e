package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tetratelabs/wazero"
)

// The limit rows, and the name of each in result files.
const (
	echoMany   = "L1 echo, 64 callers"   // requests/s
	echoOne    = "L1 echo, one caller"   // ms, p50 of a round trip
	fsyncOne   = "L2 fsync 4 KiB"        // ms, p50
	pebbleMany = "L3 pebble, 64 writers" // writes/s
	pebbleOne  = "L3 pebble, one writer" // ms, p50
	guestCall  = "L4 empty guest call"   // ns, the best mean of many
	manyCaller = 64
)

var limitNames = []string{echoMany, echoOne, fsyncOne, pebbleMany, pebbleOne, guestCall}

// limitUnits say how a limit is printed, and whether more is better.
var limitUnits = map[string]unit{
	echoMany: perSecond, echoOne: millis, fsyncOne: millis, pebbleMany: perSecond, pebbleOne: millis, guestCall: nanos,
}

// bounds is what the machine could do at one moment: limit name to figure.
type bounds map[string]float64

// machineLimits measures limits. Its echo server runs beside all rows, idle.
type machineLimits struct {
	echo *process
	dir  string // of the files that L2 and L3 write
	each time.Duration
}

func newMachineLimits(ctx context.Context, dir string, each time.Duration) (*machineLimits, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, which is the echo server too: %w", err)
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	echo, err := spawn("echo server", address, self, echoCommand, address)
	if err != nil {
		return nil, err
	}
	if _, err := echo.ready(ctx, "/"); err != nil {
		echo.kill()
		return nil, err
	}
	return &machineLimits{echo: echo, dir: dir, each: each}, nil
}

func (m *machineLimits) close() error { return m.echo.stop() }

// limitTakes is how often a limit is measured in a row: it is the median of these.
const limitTakes = 3

// measure measures the limits that are asked for, all of them if none is.
func (m *machineLimits) measure(ctx context.Context, names ...string) (bounds, error) {
	if len(names) == 0 {
		names = limitNames
	}
	b := bounds{}
	for _, name := range names {
		if _, done := b[name]; done {
			continue
		}
		var takes [limitTakes]float64
		for i := range takes {
			var err error
			if takes[i], err = m.take(ctx, name); err != nil {
				return nil, fmt.Errorf("limit %q: %w", name, err)
			}
		}
		slices.Sort(takes[:])
		b[name] = takes[limitTakes/2]
	}
	return b, nil
}

// take measures a limit once.
func (m *machineLimits) take(ctx context.Context, name string) (figure float64, err error) {
	var t *tally
	switch name {
	case echoMany:
		if t, err = m.echoes(ctx, manyCaller); err == nil {
			figure = t.rate()
		}
	case echoOne:
		if t, err = m.echoes(ctx, 1); err == nil {
			figure = ms(t.hist.quantile(0.5))
		}
	case fsyncOne:
		figure, err = m.fsync(ctx)
	case pebbleMany:
		figure, _, err = m.pebble(ctx, manyCaller)
	case pebbleOne:
		_, figure, err = m.pebble(ctx, 1)
	case guestCall:
		figure, err = emptyGuestCall(ctx, m.each)
	default:
		err = errors.New("there is no such limit")
	}
	return figure, err
}

func (m *machineLimits) echoes(ctx context.Context, callers int) (*tally, error) {
	request := post(m.echo.address, "/", "", nil)
	t, err := m.drive(ctx, callers, onConn(ctx, m.echo.address, func(_ int, c *conn) call {
		return func(int) error {
			status, body, err := c.do(request)
			if err == nil && (status != 200 || string(body) != "1") {
				err = fmt.Errorf("answer %d %q", status, body)
			}
			return err
		}
	}))
	return t, err
}

// drive is a slice of load that counts, after a warm-up that does not: a fresh file
// is slow until the file system has given it its first blocks.
func (m *machineLimits) drive(ctx context.Context, callers int, caller func(int) (call, func(), error)) (*tally, error) {
	if _, err := drive(ctx, callers, m.each/2, caller); err != nil {
		return nil, err
	}
	t, err := drive(ctx, callers, m.each, caller)
	if err == nil {
		err = t.err
	}
	return t, err
}

// fsync appends 4 KiB and waits for the disk, again and again.
func (m *machineLimits) fsync(ctx context.Context) (float64, error) {
	f, err := os.CreateTemp(m.dir, "append")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // the directory is removed in the end
	defer f.Close()
	block := make([]byte, 4096)
	t, err := m.drive(ctx, 1, func(int) (call, func(), error) {
		return func(int) error {
			if _, err := f.Write(block); err != nil {
				return err
			}
			return syncData(f)
		}, nil, nil
	})
	if err != nil {
		return 0, err
	}
	return ms(t.hist.quantile(0.5)), nil
}

// pebble sets values of 128 bytes under ever new keys, each one synced.
func (m *machineLimits) pebble(ctx context.Context, writers int) (rate, p50 float64, err error) {
	dir, err := os.MkdirTemp(m.dir, "pebble")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the directory is removed in the end
	db, err := pebble.Open(filepath.Join(dir, "db"), &pebble.Options{Logger: quiet{}})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var next atomic.Uint64
	value := make([]byte, 128)
	t, err := m.drive(ctx, writers, func(int) (call, func(), error) {
		return func(int) error {
			return db.Set(strconv.AppendUint(make([]byte, 0, 20), 1e15+next.Add(1), 10), value, pebble.Sync)
		}, nil, nil
	})
	if err != nil {
		return 0, 0, err
	}
	return t.rate(), ms(t.hist.quantile(0.5)), nil
}

// quiet drops what Pebble says of its files; what matters it returns.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("pebble: "+format, args...))
}

// emptyModule is (module (func (export "f"))) in the binary format.
var emptyModule = []byte{
	0x00, 'a', 's', 'm', 0x01, 0x00, 0x00, 0x00,
	0x01, 0x04, 0x01, 0x60, 0x00, 0x00, // types: one, () -> ()
	0x03, 0x02, 0x01, 0x00, // functions: one, of type 0
	0x07, 0x05, 0x01, 0x01, 'f', 0x00, 0x00, // exports: function 0 as "f"
	0x0a, 0x04, 0x01, 0x02, 0x00, 0x0b, // code: no locals, end
}

const callsAtOnce = 10_000 // between two looks at the clock

// emptyGuestCall returns how long a call into a guest takes that does nothing, in
// nanoseconds: the lowest mean of callsAtOnce.
func emptyGuestCall(ctx context.Context, d time.Duration) (float64, error) {
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx) //nolint:errcheck // it holds nothing but memory
	module, err := r.Instantiate(ctx, emptyModule)
	if err != nil {
		return 0, err
	}
	f := module.ExportedFunction("f")
	best := math.Inf(1)
	for began := time.Now(); time.Since(began) < d && ctx.Err() == nil; {
		from := time.Now()
		for range callsAtOnce {
			if _, err := f.Call(ctx); err != nil {
				return 0, err
			}
		}
		best = min(best, float64(time.Since(from).Nanoseconds())/callsAtOnce)
	}
	return best, ctx.Err()
}

// echoCommand makes this program the echo server: bench serve-echo ADDRESS.
const echoCommand = "serve-echo"

// serveEcho answers every request with one byte, until SIGTERM, or until the
// program that started it is gone.
func serveEcho(address string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("echo server: %w", err)
	}
	s := &http.Server{
		ReadHeaderTimeout: answerGrace,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte{'1'}) // the client may have gone
		}),
	}
	parent := os.Getppid()
	go func() { // ends with ctx, and ctx with this function
		orphaned := time.NewTicker(time.Second)
		defer orphaned.Stop()
		for ctx.Err() == nil && os.Getppid() == parent {
			select {
			case <-orphaned.C:
			case <-ctx.Done():
			}
		}
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("echo server: %w", err)
	}
	return nil
}

// moved is the largest share by which a limit of one measurement is off from the
// other, and which.
func moved(a, b bounds) (share float64, name string) {
	for _, n := range limitNames {
		x, y := a[n], b[n]
		if x <= 0 || y <= 0 {
			continue
		}
		if s := max(x, y)/min(x, y) - 1; s > share {
			share, name = s, n
		}
	}
	return share, name
}

// mean is what the machine could do between two measurements.
func mean(a, b bounds) bounds {
	m := bounds{}
	for n, x := range a {
		if y, ok := b[n]; ok {
			m[n] = (x + y) / 2
		}
	}
	return m
}
