package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client/nolatest"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
	"github.com/nolaproject/nola/wasmhost"
)

// hostile is a module of testdata/hostile and what must come of it; see
// tools/hostile.
type hostile struct {
	Name, File, At, Reason, Text string
	Steps                        uint64
	HostCalls                    int
	MemoryBytes                  uint64

	code []byte
}

func hostileCorpus(t *testing.T) []hostile {
	t.Helper()
	const dir = "../testdata/hostile"
	list, err := os.ReadFile(filepath.Join(dir, "corpus.json"))
	if err != nil {
		t.Fatal(err)
	}
	var corpus []hostile
	if err := json.Unmarshal(list, &corpus); err != nil {
		t.Fatal(err)
	}
	for i := range corpus {
		h := &corpus[i]
		if h.code, err = os.ReadFile(filepath.Join(dir, h.File)); err == nil && strings.HasSuffix(h.File, ".gz") {
			var r *gzip.Reader
			if r, err = gzip.NewReader(bytes.NewReader(h.code)); err == nil {
				h.code, err = io.ReadAll(r)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return corpus
}

// What the corpus is held to end to end.
const (
	hostileBudget   = 256 << 20              // memory of instances
	hostileDeadline = 100 * time.Millisecond // of calls that end by it
	// hostileOverrun is how long after its deadline a call may be answered: 50 ms on
	// a machine of one's own. The median of some tries counts, and the bound leaves room
	// for machines that are shared; what was measured is in the log.
	hostileOverrun = 500 * time.Millisecond * hostSlowdown
	hostilePrompt  = 50 * time.Millisecond
	hostileTries   = 5
	hostileHeapMax = 1 << 30 // of the heap, beyond what was there: compiling takes most of it
)

// TestHostileCorpusOnAServer pushes the hostile modules to a server and calls them
// there, beside an actor that behaves well and whose every answer is checked. The
// slow suite takes all of them, the ordinary one what runs and some of the rest.
func TestHostileCorpusOnAServer(t *testing.T) {
	r, err := wasmhost.New(t.Context(), wasmhost.Config{InstancesBytesMax: hostileBudget})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, nolatest.Options{Runtime: r})
	t.Cleanup(func() {
		s.Stop()
		_ = r.Close()
	})
	corpus := hostileCorpus(t)
	stop, calls := make(chan struct{}), 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			calls++
			if got, err := s.Call("small/good", "inc", ""); err != nil || got != strconv.Itoa(calls) {
				t.Errorf("the good actor answers %q, %v, want %d", got, err, calls)
				return
			}
		}
	})
	_, err = s.Client.Namespaces.CreateNamespace(t.Context(), connect.NewRequest(&nolav1.CreateNamespaceRequest{Namespace: "hostile"}))
	if err != nil {
		t.Fatal(err)
	}
	worst, worstName := time.Duration(0), ""
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	slow := os.Getenv("NOLA_SLOW") != ""
	for i, h := range corpus {
		// The pipeline is the same for all that ends there.
		if !slow && (h.At == "compile" || h.At == "push" && i%4 != 0) {
			continue
		}
		t.Run(h.Name, func(t *testing.T) {
			if over := h.play(t, s); over > worst {
				worst, worstName = over, h.Name
			}
			if n := r.Bytes(); n > hostileBudget {
				t.Errorf("instances hold %d bytes, the budget is %d", n, hostileBudget)
			}
		})
	}
	runtime.ReadMemStats(&after)
	close(stop)
	wg.Wait()
	t.Logf("%d modules; the good actor answered %d calls; the latest half of answers %s after its deadline or more (%s); heap grew by %d MiB",
		len(corpus), calls, worst, worstName, (int64(after.HeapSys)-int64(before.HeapSys))>>20)
	if more := int64(after.HeapSys) - int64(before.HeapSys); more > hostileHeapMax {
		t.Errorf("the heap grew by %d MiB", more>>20)
	}
}

// play pushes the module and calls it, and answers how long after its deadline it
// was answered.
func (h hostile) play(t *testing.T, s *nolatest.Server) (over time.Duration) {
	t.Helper()
	manifest := &nolav1.ModuleManifest{Limits: &nolav1.ModuleLimits{StepsPerTurn: h.Steps, HostCalls: uint32(h.HostCalls), MemoryBytes: h.MemoryBytes}}
	_, err := s.Client.Modules.PushModule(t.Context(), connect.NewRequest(&nolav1.PushModuleRequest{Namespace: "hostile", Name: h.Name, Wasm: h.code, Manifest: manifest}))
	switch {
	case h.At == "push":
		if reasonOf(err) != nola.Reason(h.Reason) || err != nil && !strings.Contains(err.Error(), h.Text) {
			t.Errorf("the push ended with %v, want %s, a text with %q", err, h.Reason, h.Text)
		}
		return 0
	case h.At == "compile" && err != nil:
		if r := reasonOf(err); r != nola.ReasonInvalidModule && r != nola.ReasonDeadlineExceeded {
			t.Errorf("the push ended with %v", err)
		}
		return 0
	case err != nil:
		t.Fatal(err)
	}
	at := s.URL + "/v1/hostile/" + h.Name + "/a/op"
	good := func(when string) {
		if a := post(t, at, ""); a.status != http.StatusOK || a.body != "ok" {
			t.Errorf("%s the misdeed it answers %d %.200q", when, a.status, a.body)
		}
	}
	payload := strings.Repeat("p", 64<<10)
	switch h.At {
	case "start":
		if a := post(t, at, ""); a.fault.Reason != h.Reason || !strings.Contains(a.fault.Message, h.Text) {
			t.Errorf("its start ended with %d %+v, want %s, a text with %q", a.status, a.fault, h.Reason, h.Text)
		}
		return 0
	case "compile":
		good("without")
		return 0
	}
	good("before")
	limit := 10 * time.Second // for what ends by another limit; TestHostileGuestsEndAtTheirDeadline gives it little
	if h.Reason == string(nola.ReasonDeadlineExceeded) {
		limit = hostileDeadline
	}
	var late []time.Duration
	for range hostileTries {
		began := time.Now()
		a := post(t, at, payload, "Connect-Timeout-Ms", fmt.Sprint(limit.Milliseconds()))
		late = append(late, time.Since(began)-limit)
		if a.fault.Reason != h.Reason || !strings.Contains(a.fault.Message, h.Text) {
			t.Errorf("it ended with %d %.300q, want %s, a text with %q", a.status, a.body, h.Reason, h.Text)
		}
		good("after")
		slices.Sort(late)
		if len(late) > hostileTries/2 && late[hostileTries/2] <= hostilePrompt {
			break // the rest does not change much in the median
		}
	}
	if over = late[hostileTries/2]; over > hostileOverrun {
		t.Errorf("half of the answers came %s after its deadline or more, %s are allowed: %s", over, hostileOverrun, late)
	}
	return over
}

// TestCollectionBesideSpinningGuests collects garbage, which stops all goroutines
// for a moment, again and again while two guests spin on two processors. Each
// collection is over before they are, and most are long before.
func TestCollectionBesideSpinningGuests(t *testing.T) {
	const (
		collections = 8 // fewer than a busy machine does in the time of one call
		// collectionMax leaves room for the race detector and for machines that are
		// shared; TestCollectionBesideHostileGuests of wasmhost does not. If guests
		// did not visit the host, one took more than a second.
		collectionMax = 500 * time.Millisecond
	)
	s := start(t)
	for _, h := range hostileCorpus(t) {
		if h.Name == "loop-to-deadline" {
			s.Push("loop", h.code, nola.Manifest{Limits: nola.Limits{Steps: 1 << 62}})
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	for i := range cap(ended) {
		go func() {
			ref := nola.ActorRef{Namespace: nola.DefaultNamespace, Type: "loop", ID: fmt.Sprint(i)}
			_, err := s.Client.Invoke(ctx, ref, "op", []byte("p"))
			ended <- err
		}()
	}
	eventually(t, "both guests spin", func() bool {
		answer := httptest.NewRecorder()
		s.Node.AdminHandler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return strings.Contains(answer.Body.String(), "\nnola_unanswered_calls 2\n")
	})
	var took []time.Duration
	for range collections {
		began := time.Now()
		runtime.GC()
		took = append(took, time.Since(began))
		select {
		case err := <-ended:
			t.Fatalf("a guest has ended with %v before the collections", err)
		default:
		}
	}
	slices.Sort(took)
	t.Logf("%d collections beside two spinning guests took %s", collections, took)
	if median := took[collections/2]; median > collectionMax {
		t.Errorf("half of the collections took %s or more, at most %s are allowed", median, collectionMax)
	}
	cancel()
	for range cap(ended) {
		if err := <-ended; err == nil || errors.Is(err, &nola.Error{Reason: nola.ReasonInternal}) {
			t.Errorf("a guest ended with %v", err)
		}
	}
}
