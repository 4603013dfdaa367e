package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// engine is a store with one figure of its own.
type engine struct{ persistence.Store }

func (engine) Metrics(w io.Writer) error {
	_, err := io.WriteString(w, "engine_files 3\n")
	return err
}

func TestMetricsCount(t *testing.T) {
	m := NewMetrics()
	m.rpc("/nola.v1.ActorService/Invoke", "", time.Millisecond)
	m.rpc("/nola.v1.ActorService/Invoke", "not_found", time.Millisecond)
	m.rpc("/nola.v1.ActorService/Invoke", "no such code", time.Millisecond)
	m.gateway("", time.Second)
	m.Turn(nola.KindCall, "", time.Millisecond)
	m.Turn(nola.KindTimer, nola.ReasonGuestTrap, time.Millisecond)
	m.Turn(0, "", time.Millisecond)
	m.Turn(99, "", time.Millisecond)
	m.Commit(3, 4096, time.Millisecond)
	m.Firing(nola.OutcomeFired, 0, false, 20*time.Millisecond)
	m.Firing(nola.OutcomeMissedWindow, 7, false, 0)
	m.Firing(99, 1, true, 0)
	m.SetRuntime(func(w io.Writer) error {
		_, err := io.WriteString(w, "runtime_slots 5\n")
		return err
	})
	m.SetInstanceBytes(func() int64 { return 65536 })
	nodes := prometheus.NewRegistry()
	nodes.MustRegister(&node{
		shards: func() []nola.ShardInfo {
			return []nola.ShardInfo{{Activations: 2, Due: 1}, {Shard: 1, Activations: 3, Unanswered: 4}}
		},
		usage: func() []nola.Usage {
			return []nola.Usage{
				{Ref: nola.ActorRef{Namespace: "default", Type: "counter"}, Turns: 3, Steps: 42, RunTime: 1500 * time.Millisecond},
				{Ref: nola.ActorRef{Namespace: "many", Type: nola.UsageRest}, Turns: 6, Steps: 18},
			}
		},
		instanceBytes: m.heldBytes,
	})
	s := &Server{cfg: Config{Metrics: m, Store: engine{}}}
	out := httptest.NewRecorder()
	ask := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	ask.Header.Set("Accept", "application/openmetrics-text, application/vnd.google.protobuf")
	s.metricsHandler(prometheus.Gatherers{m.registry, nodes}).ServeHTTP(out, ask)
	text := out.Body.String()
	if kind := out.Header().Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Errorf("content type %s", kind)
	}
	for _, want := range []string{
		`nola_rpc_total{code="ok",procedure="/nola.v1.ActorService/Invoke"} 1`,
		`nola_rpc_total{code="not_found",procedure="/nola.v1.ActorService/Invoke"} 1`,
		`nola_rpc_total{code="internal",procedure="/nola.v1.ActorService/Invoke"} 1`,
		`nola_rpc_seconds_count{procedure="/nola.v1.ActorService/Invoke"} 3`,
		`nola_gateway_total{reason="OK"} 1`,
		`nola_turns_total{kind="call",reason="OK"} 1`,
		`nola_turns_total{kind="timer",reason="GUEST_TRAP"} 1`,
		`nola_commits_total 1`,
		`nola_commit_batches_sum 3`,
		`nola_firings_total{outcome="FIRED"} 1`,
		`nola_firings_total{outcome="MISSED_WINDOW"} 7`,
		`nola_firings_failed_total 1`,
		`nola_firing_lateness_seconds_count 1`,
		`nola_shards 2`,
		`nola_activations 5`,
		`nola_unanswered_calls 4`,
		`nola_due_entries 1`,
		`nola_instance_bytes 65536`,
		`engine_files 3`,
		`runtime_slots 5`,
		`nola_steps_total{namespace="default",type="counter"} 42`,
		`nola_type_turns_total{namespace="default",type="counter"} 3`,
		`nola_type_run_seconds_total{namespace="default",type="counter"} 1.5`,
		`nola_steps_total{namespace="many",type="*"} 18`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "nola_") && !strings.Contains(line, "_bucket") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

func TestMetricsDoNotAllocate(t *testing.T) {
	m := NewMetrics()
	count := func() {
		m.rpc("/nola.v1.ActorService/Invoke", "", time.Millisecond)
		m.gateway(nola.ReasonUnavailable, time.Millisecond)
		m.Turn(nola.KindCall, "", time.Millisecond)
		m.Commit(1, 100, time.Millisecond)
		m.Firing(nola.OutcomeFired, 1, true, time.Millisecond)
	}
	count()
	if n := testing.AllocsPerRun(100, count); n > 0 {
		t.Errorf("counting allocates %v times", n)
	}
}

func BenchmarkMetricsRPC(b *testing.B) {
	m := NewMetrics()
	for b.Loop() {
		m.rpc("/nola.v1.ActorService/Invoke", "", time.Millisecond)
	}
}
