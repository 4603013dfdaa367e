package cqlstore

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
	"github.com/nolaproject/nola/persistence/cqlstore/cqlfake"
	"github.com/nolaproject/nola/persistence/lane"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew; then read the difference, for it is what the cluster stores and is asked")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed:\n got %s\nwant %s", path, got, want)
	}
}

// TestStatements pins down every statement with the consistency it goes with.
func TestStatements(t *testing.T) {
	var b strings.Builder
	seen := map[string]bool{}
	for s := range statementsEnd {
		st := statements[s]
		if st.text == "" || seen[st.name] {
			t.Errorf("statement %d (%s) has no text, or the name of another", s, st.name)
		}
		seen[st.name] = true
		level := st.kind.consistency().String()
		if st.kind == serial {
			level = "LOCAL_SERIAL"
		}
		if st.kind == lwt {
			level += "/LOCAL_SERIAL"
		}
		fmt.Fprintf(&b, "%s [%s]\n    %s\n", st.name, level, s.text("nola"))

		conditional := strings.Contains(st.text, " IF ")
		write := !strings.HasPrefix(st.text, "SELECT")
		if s != stmtSlotAppend && conditional != (st.kind == lwt) {
			t.Errorf("%s: a condition and the consistency of one go together", st.name)
		}
		if write && st.kind == plain && !strings.Contains(st.text, "USING TIMESTAMP") {
			t.Errorf("%s: a plain write without a timestamp of its own", st.name)
		}
	}
	golden(t, "statements.golden", b.String())
}

// TestSentAsListed looks at what a server is sent: statements of the list alone, each
// with the consistency that stands there, and none with a timestamp of the driver's.
func TestSentAsListed(t *testing.T) {
	for _, mode := range []Mode{ModeQuorum, ModeLWT} {
		server, err := cqlfake.Start(cqlfake.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		c := Config{Hosts: []string{server.Address()}, OnlyHosts: true, Mode: mode, Name: "one", Log: slog.New(slog.DiscardHandler)}
		if _, err := SetupSchema(t.Context(), c, Schema{Replicas: 1, Shards: 2}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second takes over from the first
			s, err := Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			heads, err := s.Acquire(t.Context(), []nola.ShardID{0, 1})
			if err != nil {
				t.Fatal(err)
			}
			b := new(persistence.Batch)
			b.Reset(1, heads[1].Epoch, heads[1].Seq+1)
			b.PutState(nola.ActorRef{Namespace: "n", Type: "t", ID: "a"}, "k", []byte("v"))
			if err := s.Commit([]*persistence.Batch{b})[0]; err != nil {
				t.Fatal(err)
			}
			if err := s.Fence(t.Context()); err != nil {
				t.Fatal(err)
			}
			data := []byte("object")
			digest := sha256.Sum256(data)
			if err := s.PutObject(t.Context(), digest, data); err != nil {
				t.Fatal(err)
			}
			if _, err := s.CatalogPut(t.Context(), persistence.SpaceNamespace, fmt.Sprint(heads[0].Epoch), 0, []byte("v")); err != nil {
				t.Fatal(err)
			}
			if err := s.Release(t.Context(), 0, heads[0].Epoch, ""); err != nil {
				t.Fatal(err)
			}
			if err := s.Tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		byText := map[string]statement{}
		for s := range statementsEnd {
			byText[s.text(KeyspaceDefault)] = s
		}
		kinds := map[kind]int{}
		for _, r := range server.Requests() {
			for _, text := range r.Statements {
				s, known := byText[text]
				if !known {
					t.Errorf("mode %s: sent, and not in the list: %s", mode, text)
					continue
				}
				want := statements[s].kind
				level := want.consistency().String()
				if want == serial {
					level = "LOCAL_SERIAL"
				}
				if r.Consistency != level || want == lwt && r.Serial != "LOCAL_SERIAL" || r.Timestamp {
					t.Errorf("mode %s: %s went with %s/%s, a timestamp of its own %v; want %s/LOCAL_SERIAL", mode, statements[s].name, r.Consistency, r.Serial, r.Timestamp, level)
				}
				kinds[want]++
			}
		}
		if kinds[plain] == 0 || kinds[lwt] == 0 || kinds[serial] == 0 {
			t.Errorf("mode %s: too little was sent to tell anything: %v", mode, kinds)
		}
	}
}

// TestSchema pins down the tables. A version that was released does not change.
func TestSchema(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, Schema{Replicas: 3, Datacenters: []string{"dc1", "o'2"}, NoTablets: true}.keyspace("nola"))
	for _, text := range first {
		fmt.Fprintln(&b, text)
	}
	for i, s := range steps {
		if s.version != i+1 || s.needs > s.version {
			t.Errorf("step %d has version %d and needs %d", i, s.version, s.needs)
		}
		fmt.Fprintf(&b, "version %d, needs %d\n%s\n", s.version, s.needs, strings.Join(s.statements, "\n"))
	}
	if last := steps[len(steps)-1].version; last != SchemaVersion {
		t.Errorf("the last step makes version %d, SchemaVersion is %d", last, SchemaVersion)
	}
	golden(t, "schema.golden", b.String())
}

// TestLayout pins down where rows lie: what is stored under one layout is not
// found under another.
func TestLayout(t *testing.T) {
	ref := nola.ActorRef{Namespace: "shop", Type: "cart", ID: "ä/7"}
	due := append([]byte{0x98, 0xfa, 0xcb, 0x86, 0x1f, 0x4c, 0x50, 0x07}, ref.AppendCanonical(nil)...)
	var b strings.Builder
	for _, r := range []struct {
		name  string
		table persistence.Table
		own   []byte
	}{
		{"meta", persistence.TableMeta, nil},
		{"state", persistence.TableState, []byte("k")},
		{"due", persistence.TableDue, append(due, 1, 'n')},
		{"outcome", persistence.TableOutcome, []byte{1, 0x9b, 0x2f, 0x11, 0x22, 0x33, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
		{"session", persistence.TableSession, append([]byte{0, 0x80, 0, 0, 0, 1, 0x9b, 0x2f, 0x11}, "rest"...)},
		{"outbox", persistence.TableOutbox, []byte{0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0x23, 0x45}},
		{"inbox", persistence.TableInbox, []byte{0, 0, 0, 7}},
		{"backlog", persistence.TableBacklog, append(ref.AppendCanonical(nil), 0, 0, 0, 0, 0, 0, 0, 9)},
		{"floors", persistence.TableFloors, nil},
	} {
		key := string(appendKey(nil, r.table, ref, r.own))
		w := rowWrite(3, key, &item{value: []byte("v"), present: true, ts: 42})
		fmt.Fprintf(&b, "%s: key %x\n  %s %v\n", r.name, key, statements[w.stmt].name, hexed(w.args))
		if !r.table.OfActor() {
			lo := bucketOf(r.table, r.own)
			fmt.Fprintf(&b, "  bucket %x to %x\n", lo, bucketEnd(r.table, lo))
		}
	}
	w := rowWrite(3, string(appendListingKey(nil, ref)), &item{present: true, ts: 42})
	fmt.Fprintf(&b, "listing:\n  %s %v\n", statements[w.stmt].name, hexed(w.args))
	golden(t, "layout.golden", b.String())
}

func hexed(args []any) []string {
	var list []string
	for _, a := range args {
		if bytes, ok := a.([]byte); ok {
			list = append(list, fmt.Sprintf("%x", bytes))
			continue
		}
		list = append(list, fmt.Sprint(a))
	}
	return list
}

// TestChoosesMode looks what is chosen for which server, and whether it warns
// where acknowledged work could be lost.
func TestChoosesMode(t *testing.T) {
	for _, tt := range []struct {
		flavour, sync string
		asked         Mode
		want          lane.Mode
		warns         bool
	}{
		{"Cassandra", "batch", ModeAuto, lane.ModeQuorum, false},
		{"Cassandra", "group", ModeAuto, lane.ModeQuorum, false},
		{"Cassandra", "periodic", ModeAuto, lane.ModeQuorum, true},
		{"Cassandra", "?", ModeAuto, lane.ModeQuorum, true},
		{"Cassandra", "batch", ModeLWT, lane.ModeLWT, false},
		{"Scylla", "periodic", ModeAuto, lane.ModeLWT, false},
		{"Scylla", "batch", ModeAuto, lane.ModeQuorum, false},
		{"Scylla", "?", ModeAuto, lane.ModeLWT, false},
		{"Scylla", "periodic", ModeQuorum, lane.ModeQuorum, true},
	} {
		s := Server{Flavour: tt.flavour, Sync: tt.sync}
		s.choose(tt.asked)
		if s.Mode != tt.want || (s.Warning != "") != tt.warns || s.Why == "" {
			t.Errorf("%s with commitlog_sync %s, asked for %s: %s because %q, warning %q", tt.flavour, tt.sync, tt.asked, modeName(s.Mode), s.Why, s.Warning)
		}
	}
}
