package server

import (
	"io"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Buckets of the histograms: from what memory answers to what a deadline ends.
var (
	secondsBuckets  = []float64{.000_1, .000_25, .000_5, .001, .002_5, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300}
	latenessBuckets = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 5, 15, 60, 300, 3_600, 86_400}
	batchBuckets    = prometheus.ExponentialBuckets(1, 2, 11) // to 1,024 batches
	bytesBuckets    = prometheus.ExponentialBuckets(256, 4, 10)
)

// Metrics counts what a node does, in a registry of its own. Its methods may be
// called at once; all they do is to find ready counters and add to them.
type Metrics struct {
	registry *prometheus.Registry

	rpcs       *prometheus.CounterVec
	rpcSeconds *prometheus.HistogramVec
	procedures sync.Map // procedure -> *served

	plain turns // calls through the gateway
	turns [nola.KindSchedule + 1]turns

	rests prometheus.Counter

	commits       prometheus.Counter
	commitSeconds prometheus.Histogram
	commitBatches prometheus.Histogram
	commitBytes   prometheus.Histogram

	firings        [nola.OutcomeTerminated + 1]prometheus.Counter
	firingsFailed  prometheus.Counter
	firingLateness prometheus.Histogram

	instanceBytes atomic.Pointer[func() int64]
	runtime       atomic.Pointer[func(io.Writer) error]
}

// served counts the requests to one procedure, by code.
type served struct {
	byCode  map[string]prometheus.Counter // never written after it was made
	seconds prometheus.Observer
}

func (s *served) observe(code string, d time.Duration) {
	c, ok := s.byCode[code]
	if !ok {
		c = s.byCode[codeOf(nola.ReasonInternal).String()]
	}
	c.Inc()
	s.seconds.Observe(d.Seconds())
}

// turns counts the turns of one kind, or other calls, by reason.
type turns struct {
	byReason map[nola.Reason]prometheus.Counter // never written after it was made
	seconds  prometheus.Observer
}

func (t *turns) observe(reason nola.Reason, d time.Duration) {
	c, ok := t.byReason[reason]
	if !ok {
		c = t.byReason[nola.ReasonInternal]
	}
	c.Inc()
	t.seconds.Observe(d.Seconds())
}

// NewMetrics makes a set of metrics that are all zero.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	register := func(c prometheus.Collector) { m.registry.MustRegister(c) }
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		register(c)
		return c
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		register(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		register(h)
		return h
	}
	histograms := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: secondsBuckets}, labels)
		register(h)
		return h
	}
	register(collectors.NewGoCollector())
	register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.rpcs = counters("nola_rpc_total", "Requests answered, by procedure and code.", "procedure", "code")
	m.rpcSeconds = histograms("nola_rpc_seconds", "How long requests took, by procedure.", "procedure")

	m.plain.byReason = everyReason(counters("nola_gateway_total", "Calls through the plain HTTP gateway, by reason; the reason is OK unless they failed.", "reason"))
	m.plain.seconds = histogram("nola_gateway_seconds", "How long calls through the plain HTTP gateway took.", secondsBuckets)

	ended := counters("nola_turns_total", "Turns ended, by kind and reason; the reason is OK unless they failed.", "kind", "reason")
	lasted := histograms("nola_turn_seconds", "How long turns ran, by kind.", "kind")
	for kind := nola.KindCall; kind <= nola.KindSchedule; kind++ {
		m.turns[kind] = turns{byReason: everyReason(ended, kind.String()), seconds: lasted.WithLabelValues(kind.String())}
	}

	m.rests = counter("nola_turn_rests_total", "How often a long turn rested because others had begun.")

	m.commits = counter("nola_commits_total", "Commits, each of one or more batches.")
	m.commitSeconds = histogram("nola_commit_seconds", "How long commits took.", secondsBuckets)
	m.commitBatches = histogram("nola_commit_batches", "Batches in one commit.", batchBuckets)
	m.commitBytes = histogram("nola_commit_bytes", "Bytes in one commit.", bytesBuckets)

	fired := counters("nola_firings_total", "Nominal times of schedules and reminders, by outcome.", "outcome")
	for outcome := nola.OutcomeRunning; outcome <= nola.OutcomeTerminated; outcome++ {
		if outcome == nola.OutcomeBuffered {
			continue // never an end
		}
		m.firings[outcome] = fired.WithLabelValues(outcome.String())
	}
	m.firingsFailed = counter("nola_firings_failed_total", "Firings whose operation failed.")
	m.firingLateness = histogram("nola_firing_lateness_seconds", "How long after their nominal times, with jitter, firings began.", latenessBuckets)
	return m
}

// lazily is a counter that shows up once it was added to.
func lazily(vec *prometheus.CounterVec, labels ...string) prometheus.Counter {
	return &lazyCounter{make: sync.OnceValue(func() prometheus.Counter { return vec.WithLabelValues(labels...) })}
}

type lazyCounter struct {
	prometheus.Counter // nil: only Inc and Add are called
	make               func() prometheus.Counter
}

func (c *lazyCounter) Inc()          { c.make().Inc() }
func (c *lazyCounter) Add(n float64) { c.make().Add(n) }

// everyReason makes a counter ready for each reason, with these labels in front.
func everyReason(vec *prometheus.CounterVec, labels ...string) map[nola.Reason]prometheus.Counter {
	labels = labels[:len(labels):len(labels)]
	byReason := map[nola.Reason]prometheus.Counter{"": vec.WithLabelValues(append(labels, "OK")...)}
	for reason := range codes {
		byReason[reason] = lazily(vec, append(labels, string(reason))...)
	}
	return byReason
}

// rpc counts a request to a procedure that was answered with a code, empty if it
// went well. Procedures are those of the services, so that there are few.
func (m *Metrics) rpc(procedure, code string, d time.Duration) {
	p, ok := m.procedures.Load(procedure)
	if !ok {
		byCode := map[string]prometheus.Counter{"": m.rpcs.WithLabelValues(procedure, "ok")}
		for _, c := range codes {
			byCode[c.String()] = lazily(m.rpcs, procedure, c.String())
		}
		p, _ = m.procedures.LoadOrStore(procedure, &served{byCode: byCode, seconds: m.rpcSeconds.WithLabelValues(procedure)})
	}
	p.(*served).observe(code, d)
}

// gateway counts a call through the plain HTTP gateway. reason is empty if it
// went well.
func (m *Metrics) gateway(reason nola.Reason, d time.Duration) { m.plain.observe(reason, d) }

// Turn counts a turn that ended. reason is empty if it went well.
func (m *Metrics) Turn(kind nola.Kind, reason nola.Reason, d time.Duration) {
	if int(kind) >= len(m.turns) || m.turns[kind].byReason == nil {
		return
	}
	m.turns[kind].observe(reason, d)
}

// Rested counts a rest of a long turn.
func (m *Metrics) Rested(nola.ActorRef) { m.rests.Inc() }

// Commit counts a commit that was made durable.
func (m *Metrics) Commit(batches, bytes int, d time.Duration) {
	m.commits.Inc()
	m.commitSeconds.Observe(d.Seconds())
	m.commitBatches.Observe(float64(batches))
	m.commitBytes.Observe(float64(bytes))
}

// Firing counts what became of nominal times: count of them with one outcome.
// ok and late are of a firing that ran: whether its operation went well, and how
// long after it was due it began.
func (m *Metrics) Firing(outcome nola.Outcome, count int, ok bool, late time.Duration) {
	if int(outcome) >= len(m.firings) || m.firings[outcome] == nil {
		return
	}
	m.firings[outcome].Add(float64(max(1, count)))
	if outcome != nola.OutcomeFired {
		return
	}
	if !ok {
		m.firingsFailed.Inc()
	}
	m.firingLateness.Observe(max(0, late).Seconds())
}

// SetInstanceBytes says who knows how much memory the guests hold.
func (m *Metrics) SetInstanceBytes(fn func() int64) { m.instanceBytes.Store(&fn) }

// SetRuntime says who writes the runtime's own figures, in the text format.
func (m *Metrics) SetRuntime(write func(io.Writer) error) { m.runtime.Store(&write) }

// node answers the gauges of a node, and what turns have cost, when somebody asks.
type node struct {
	shards        func() []nola.ShardInfo
	usage         func() []nola.Usage
	instanceBytes func() int64
}

var usageLabels = []string{"namespace", "type"}

var (
	descShards      = prometheus.NewDesc("nola_shards", "Shards that this node owns.", nil, nil)
	descActivations = prometheus.NewDesc("nola_activations", "Actors in memory.", nil, nil)
	descUnanswered  = prometheus.NewDesc("nola_unanswered_calls", "Invocations that were admitted and wait for their outcome.", nil, nil)
	descDue         = prometheus.NewDesc("nola_due_entries", "Entries of the due index that are held in memory.", nil, nil)
	descCommitted   = prometheus.NewDesc("nola_shard_commits", "Commits ever made, by all shards.", nil, nil)
	descSteps       = prometheus.NewDesc("nola_steps_total", "Steps that turns took by the meter, by namespace and type of the actor.", usageLabels, nil)
	descTypeTurns   = prometheus.NewDesc("nola_type_turns_total", "Turns ended, by namespace and type of the actor.", usageLabels, nil)
	descTypeSeconds = prometheus.NewDesc("nola_type_run_seconds_total", "How long turns ran without the calls that they waited for, by namespace and type of the actor.", usageLabels, nil)
	descInstances   = prometheus.NewDesc("nola_instance_bytes", "Memory that guests hold.", nil, nil)
)

// Describe names them.
func (n *node) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(n, ch) }

// Collect answers them.
func (n *node) Collect(ch chan<- prometheus.Metric) {
	var activations, unanswered, due, seq float64
	list := n.shards()
	for i := range list {
		activations += float64(list[i].Activations)
		unanswered += float64(list[i].Unanswered)
		due += float64(list[i].Due)
		seq += float64(list[i].Seq)
	}
	gauge := func(desc *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v)
	}
	gauge(descShards, float64(len(list)))
	gauge(descActivations, activations)
	gauge(descUnanswered, unanswered)
	gauge(descDue, due)
	gauge(descCommitted, seq)
	gauge(descInstances, float64(n.instanceBytes()))
	for _, u := range n.usage() {
		count := func(desc *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, v, u.Ref.Namespace, u.Ref.Type)
		}
		count(descSteps, float64(u.Steps))
		count(descTypeTurns, float64(u.Turns))
		count(descTypeSeconds, u.RunTime.Seconds())
	}
}

// AdminHandler serves operators: /metrics in the Prometheus text format,
// /debug/pprof, /healthz and /readyz. It checks no tokens: listen where only
// operators come.
func (s *Server) AdminHandler() http.Handler {
	nodes := prometheus.NewRegistry()
	nodes.MustRegister(&node{shards: s.cfg.Shards.Shards, usage: s.cfg.Shards.TypeUsage, instanceBytes: s.cfg.Metrics.heldBytes})
	all := prometheus.Gatherers{s.cfg.Metrics.registry, nodes}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metricsHandler(all))
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func (m *Metrics) heldBytes() int64 {
	if fn := m.instanceBytes.Load(); fn != nil {
		return (*fn)()
	}
	return 0
}

// metricsHandler answers what was gathered, and behind it the own figures of the
// runtime and the store, which are text: so all is text, whatever the client would rather have.
func (s *Server) metricsHandler(all prometheus.Gatherer) http.Handler {
	own := promhttp.HandlerFor(all, promhttp.HandlerOpts{DisableCompression: true, ErrorHandling: promhttp.ContinueOnError})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.Header.Del("Accept")
		own.ServeHTTP(w, r)
		if write := s.cfg.Metrics.runtime.Load(); write != nil {
			if err := (*write)(w); err != nil {
				s.log.Warn("metrics were answered without those of the runtime", "error", err)
				return
			}
		}
		engine, ok := s.cfg.Store.(persistence.Metricser)
		if !ok {
			return
		}
		if err := engine.Metrics(w); err != nil {
			s.log.Warn("metrics were answered without those of the store", "error", err)
		}
	})
}
