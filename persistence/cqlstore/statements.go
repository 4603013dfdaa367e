package cqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence/lane"
)

// statement names one CQL statement. All that is ever sent after the schema
// stands below, once; testdata/statements.golden shows it with its consistency.
type statement int

const (
	stmtHeadCreate statement = iota
	stmtHeadSeal
	stmtHeadDecide
	stmtHeadTrim
	stmtHeadRead
	stmtHeadAppend
	stmtSlotAppend
	stmtSlotWrite
	stmtSlotsRead
	stmtSlotsDelete
	stmtChunkWrite
	stmtChunksRead
	stmtChunksDelete
	stmtLaneChunksDelete
	stmtLaneList
	stmtLaneEnter
	stmtLaneLeave
	stmtHeadDelete
	stmtTrimmedEnter
	stmtTrimmedRead
	stmtTrimmedLeave

	stmtShardCreate
	stmtShardRead
	stmtShardsRead
	stmtShardClaim
	stmtShardRelease

	stmtNodeBeat
	stmtNodesRead
	stmtNodeLeave

	stmtActorPut
	stmtActorDelete
	stmtActorDeleteFrom
	stmtActorDeleteRange
	stmtActorDeleteAll
	stmtActorRead
	stmtActorGet
	stmtActorScan
	stmtActorScanTo
	stmtActorScanReverse
	stmtActorScanReverseTo
	stmtShardPut
	stmtShardDelete
	stmtShardDeleteFrom
	stmtShardDeleteRange
	stmtBucketDelete
	stmtShardGet
	stmtShardScan
	stmtShardScanTo
	stmtShardScanReverse
	stmtShardScanReverseTo
	stmtBucketEnter
	stmtBucketLeave
	stmtBucketsRead
	stmtNumberPut
	stmtNumberRead
	stmtListingPut
	stmtListingDelete
	stmtListingScan

	stmtObjectRead
	stmtObjectCreate
	stmtObjectDelete
	stmtPartWrite
	stmtPartRead
	stmtPartsDelete

	stmtEntryRead
	stmtEntryCreate
	stmtEntryWrite
	stmtEntryDelete
	stmtEntriesRead
	stmtEntryParts

	stmtClusterRead
	stmtClusterCreate
	stmtHistoryRead
	stmtHistoryWrite
	stmtLockTake
	stmtLockRenew
	stmtLockDrop

	stmtKeyspaceRead
	stmtSettingRead
	stmtScyllaRead
	stmtScyllaSettingRead
	stmtFeaturesRead
	stmtTabletsRead
	stmtServerRead
	stmtAlive

	statementsEnd
)

// kind is with which consistency a statement goes.
type kind uint8

const (
	plain  kind = iota // LOCAL_QUORUM
	lwt                // LOCAL_QUORUM, and LOCAL_SERIAL for its condition
	serial             // a read at LOCAL_SERIAL: it sees every conditional write that was answered
	local              // of the node that is asked: tables that each node has of its own
)

// statements are the texts; $ stands for the keyspace. Rows that are touched by
// conditional statements are touched by these alone, and every plain write says
// its timestamp, so that it may be repeated at any time.
var statements = [statementsEnd]struct {
	name string
	kind kind
	text string
}{
	stmtHeadCreate: {"head create", lwt, "INSERT INTO $.lane_log (lane, kind, slot, node, addr, mode, ring_size, sealed, last_seq, final_seq, final_ts, trimmed) VALUES (?, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, 0) IF NOT EXISTS"},
	stmtHeadSeal:   {"head seal", lwt, "UPDATE $.lane_log SET sealed = 1 WHERE lane = ? AND kind = 0 AND slot = 0 IF sealed = 0"},
	stmtHeadDecide: {"head decide", lwt, "UPDATE $.lane_log SET final_seq = ?, final_ts = ? WHERE lane = ? AND kind = 0 AND slot = 0 IF final_seq = -1 AND final_ts = -1"},
	stmtHeadTrim:   {"head trim", lwt, "UPDATE $.lane_log SET trimmed = 1 WHERE lane = ? AND kind = 0 AND slot = 0 IF trimmed = 0 AND sealed = 1 AND final_seq = ?"},
	stmtHeadRead:   {"head read", plain, "SELECT node, addr, mode, ring_size, sealed, last_seq, final_seq, final_ts, trimmed FROM $.lane_log WHERE lane = ? AND kind = 0 AND slot = 0"},
	// The two of one batch; the one with the condition comes first.
	stmtHeadAppend: {"head append", lwt, "UPDATE $.lane_log SET last_seq = ? WHERE lane = ? AND kind = 0 AND slot = 0 IF sealed = 0 AND last_seq = ?"},
	stmtSlotAppend: {"slot append", lwt, "INSERT INTO $.lane_log (lane, kind, slot, seq, prev, ts, applied_seq, committed_seq, crc, body) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?)"},

	stmtSlotWrite:        {"slot write", plain, "INSERT INTO $.lane_log (lane, kind, slot, seq, prev, ts, applied_seq, committed_seq, crc, body) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"},
	stmtSlotsRead:        {"slots read", plain, "SELECT seq, prev, ts, applied_seq, committed_seq, crc, body FROM $.lane_log WHERE lane = ? AND kind = 1"},
	stmtSlotsDelete:      {"slots delete", plain, "DELETE FROM $.lane_log USING TIMESTAMP ? WHERE lane = ? AND kind = 1"},
	stmtChunkWrite:       {"chunk write", plain, "INSERT INTO $.lane_chunks (lane, chunks, part, data) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"},
	stmtChunksRead:       {"chunks read", plain, "SELECT data FROM $.lane_chunks WHERE lane = ? AND chunks = ?"},
	stmtChunksDelete:     {"chunks delete", plain, "DELETE FROM $.lane_chunks USING TIMESTAMP ? WHERE lane = ? AND chunks = ?"},
	stmtLaneChunksDelete: {"chunks of a lane delete", plain, "DELETE FROM $.lane_chunks USING TIMESTAMP ? WHERE lane = ?"},
	stmtLaneList:         {"lanes read", plain, "SELECT lane, node FROM $.lanes WHERE p = 0"},
	stmtLaneEnter:        {"lane enter", plain, "INSERT INTO $.lanes (p, lane, node) VALUES (0, ?, ?) USING TIMESTAMP 1"},
	stmtLaneLeave:        {"lane leave", plain, "DELETE FROM $.lanes USING TIMESTAMP 2 WHERE p = 0 AND lane = ?"},

	stmtHeadDelete:   {"head delete", lwt, "DELETE FROM $.lane_log WHERE lane = ? AND kind = 0 AND slot = 0 IF trimmed = 1"},
	stmtTrimmedEnter: {"trimmed enter", plain, "INSERT INTO $.trimmed_lanes (p, lane, at) VALUES (0, ?, ?) USING TIMESTAMP 1"},
	stmtTrimmedRead:  {"trimmed read", plain, "SELECT lane, at FROM $.trimmed_lanes WHERE p = 0"},
	stmtTrimmedLeave: {"trimmed leave", plain, "DELETE FROM $.trimmed_lanes USING TIMESTAMP 2 WHERE p = 0 AND lane = ?"},

	stmtShardCreate:  {"shard create", lwt, "INSERT INTO $.shards (shard, epoch, lane, node, addr, handoff_to, ts_floor) VALUES (?, 0, ?, '', '', '', 0) IF NOT EXISTS"},
	stmtShardRead:    {"shard read", plain, "SELECT epoch, lane, handoff_to, ts_floor FROM $.shards WHERE shard = ?"},
	stmtShardsRead:   {"shards read", plain, "SELECT shard, epoch, lane, node, addr, handoff_to, ts_floor FROM $.shards"},
	stmtShardClaim:   {"shard claim", lwt, "UPDATE $.shards SET epoch = ?, lane = ?, node = ?, addr = ?, handoff_to = '', ts_floor = ? WHERE shard = ? IF epoch = ? AND lane = ?"},
	stmtShardRelease: {"shard release", lwt, "UPDATE $.shards SET lane = ?, node = '', addr = '', handoff_to = ?, ts_floor = ? WHERE shard = ? IF epoch = ? AND lane = ?"},

	stmtNodeBeat:  {"node beat", plain, "INSERT INTO $.nodes (p, node, name, addr, zone, labels, state, beat, lease_ms, shards, load, build, started) VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL 3600"},
	stmtNodesRead: {"nodes read", plain, "SELECT node, name, addr, zone, labels, state, beat, lease_ms, shards, load, build, started FROM $.nodes WHERE p = 0"},
	stmtNodeLeave: {"node leave", plain, "DELETE FROM $.nodes USING TIMESTAMP ? WHERE p = 0 AND node = ?"},

	stmtActorPut:           {"actor put", plain, "INSERT INTO $.actor_rows (shard, actor, tbl, k, v) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"},
	stmtActorDelete:        {"actor delete", plain, "DELETE FROM $.actor_rows USING TIMESTAMP ? WHERE shard = ? AND actor = ? AND tbl = ? AND k = ?"},
	stmtActorDeleteFrom:    {"actor delete from", plain, "DELETE FROM $.actor_rows USING TIMESTAMP ? WHERE shard = ? AND actor = ? AND tbl = ? AND k >= ?"},
	stmtActorDeleteRange:   {"actor delete range", plain, "DELETE FROM $.actor_rows USING TIMESTAMP ? WHERE shard = ? AND actor = ? AND tbl = ? AND k >= ? AND k < ?"},
	stmtActorDeleteAll:     {"actor delete all", plain, "DELETE FROM $.actor_rows USING TIMESTAMP ? WHERE shard = ? AND actor = ? AND tbl < ?"},
	stmtActorRead:          {"actor read", plain, "SELECT tbl, k, v FROM $.actor_rows WHERE shard = ? AND actor = ? LIMIT ?"},
	stmtActorGet:           {"actor get", plain, "SELECT v FROM $.actor_rows WHERE shard = ? AND actor = ? AND tbl = ? AND k = ?"},
	stmtActorScan:          {"actor scan", plain, "SELECT k, v FROM $.actor_rows WHERE shard = ? AND actor = ? AND tbl = ? AND k >= ? LIMIT ?"},
	stmtActorScanTo:        {"actor scan to", plain, "SELECT k, v FROM $.actor_rows WHERE shard = ? AND actor = ? AND tbl = ? AND k >= ? AND k < ? LIMIT ?"},
	stmtActorScanReverse:   {"actor scan reverse", plain, "SELECT k, v FROM $.actor_rows WHERE shard = ? AND actor = ? AND tbl = ? AND k >= ? ORDER BY tbl DESC, k DESC LIMIT ?"},
	stmtActorScanReverseTo: {"actor scan reverse to", plain, "SELECT k, v FROM $.actor_rows WHERE shard = ? AND actor = ? AND tbl = ? AND k >= ? AND k < ? ORDER BY tbl DESC, k DESC LIMIT ?"},

	stmtShardPut:           {"row put", plain, "INSERT INTO $.shard_rows (shard, tbl, bucket, k, v) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"},
	stmtShardDelete:        {"row delete", plain, "DELETE FROM $.shard_rows USING TIMESTAMP ? WHERE shard = ? AND tbl = ? AND bucket = ? AND k = ?"},
	stmtShardDeleteFrom:    {"row delete from", plain, "DELETE FROM $.shard_rows USING TIMESTAMP ? WHERE shard = ? AND tbl = ? AND bucket = ? AND k >= ?"},
	stmtShardDeleteRange:   {"row delete range", plain, "DELETE FROM $.shard_rows USING TIMESTAMP ? WHERE shard = ? AND tbl = ? AND bucket = ? AND k >= ? AND k < ?"},
	stmtBucketDelete:       {"bucket delete", plain, "DELETE FROM $.shard_rows USING TIMESTAMP ? WHERE shard = ? AND tbl = ? AND bucket = ?"},
	stmtShardGet:           {"row get", plain, "SELECT v FROM $.shard_rows WHERE shard = ? AND tbl = ? AND bucket = ? AND k = ?"},
	stmtShardScan:          {"row scan", plain, "SELECT k, v FROM $.shard_rows WHERE shard = ? AND tbl = ? AND bucket = ? AND k >= ? LIMIT ?"},
	stmtShardScanTo:        {"row scan to", plain, "SELECT k, v FROM $.shard_rows WHERE shard = ? AND tbl = ? AND bucket = ? AND k >= ? AND k < ? LIMIT ?"},
	stmtShardScanReverse:   {"row scan reverse", plain, "SELECT k, v FROM $.shard_rows WHERE shard = ? AND tbl = ? AND bucket = ? AND k >= ? ORDER BY k DESC LIMIT ?"},
	stmtShardScanReverseTo: {"row scan reverse to", plain, "SELECT k, v FROM $.shard_rows WHERE shard = ? AND tbl = ? AND bucket = ? AND k >= ? AND k < ? ORDER BY k DESC LIMIT ?"},
	stmtBucketEnter:        {"bucket enter", plain, "INSERT INTO $.buckets (shard, tbl, bucket) VALUES (?, ?, ?) USING TIMESTAMP ?"},
	stmtBucketLeave:        {"bucket leave", plain, "DELETE FROM $.buckets USING TIMESTAMP ? WHERE shard = ? AND tbl = ? AND bucket = ?"},
	stmtBucketsRead:        {"buckets read", plain, "SELECT tbl, bucket FROM $.buckets WHERE shard = ?"},
	stmtNumberPut:          {"number put", plain, "INSERT INTO $.shard_numbers (shard, seq) VALUES (?, ?) USING TIMESTAMP ?"},
	stmtNumberRead:         {"number read", plain, "SELECT seq FROM $.shard_numbers WHERE shard = ?"},
	stmtListingPut:         {"listing put", plain, "INSERT INTO $.listing (ns, bucket, k) VALUES (?, ?, ?) USING TIMESTAMP ?"},
	stmtListingDelete:      {"listing delete", plain, "DELETE FROM $.listing USING TIMESTAMP ? WHERE ns = ? AND bucket = ? AND k = ?"},
	stmtListingScan:        {"listing scan", plain, "SELECT k FROM $.listing WHERE ns = ? AND bucket = ? AND k >= ? LIMIT ?"},

	stmtObjectRead:   {"object read", serial, "SELECT upload, size, parts FROM $.objects WHERE digest = ?"},
	stmtObjectCreate: {"object create", lwt, "INSERT INTO $.objects (digest, upload, size, parts) VALUES (?, ?, ?, ?) IF NOT EXISTS"},
	stmtObjectDelete: {"object delete", lwt, "DELETE FROM $.objects WHERE digest = ? IF upload = ?"},
	stmtPartWrite:    {"part write", plain, "INSERT INTO $.object_parts (upload, part, data) VALUES (?, ?, ?) USING TIMESTAMP 1"},
	stmtPartRead:     {"part read", plain, "SELECT data FROM $.object_parts WHERE upload = ? AND part = ?"},
	stmtPartsDelete:  {"parts delete", plain, "DELETE FROM $.object_parts USING TIMESTAMP 2 WHERE upload = ? AND part = ?"},

	stmtEntryRead:   {"entry read", serial, "SELECT version, live, value FROM $.catalogue WHERE space = ? AND part = ? AND bucket = ? AND k = ?"},
	stmtEntryCreate: {"entry create", lwt, "INSERT INTO $.catalogue (space, part, bucket, k, version, live, value) VALUES (?, ?, ?, ?, ?, 1, ?) IF NOT EXISTS"},
	stmtEntryWrite:  {"entry write", lwt, "UPDATE $.catalogue SET version = ?, live = ?, value = ? WHERE space = ? AND part = ? AND bucket = ? AND k = ? IF version = ?"},
	stmtEntryDelete: {"entry delete", lwt, "DELETE FROM $.catalogue WHERE space = ? AND part = ? AND bucket = ? AND k = ? IF version = ? AND live = 0"},
	stmtEntriesRead: {"entries read", plain, "SELECT k, version, live, value FROM $.catalogue WHERE space = ? AND part = ? AND bucket = ? AND k >= ? LIMIT ?"},

	stmtEntryParts: {"entry parts", plain, "SELECT DISTINCT space, part, bucket FROM $.catalogue"},

	stmtClusterRead:   {"cluster read", serial, "SELECT id, shards, secret FROM $.cluster WHERE k = 'cluster'"},
	stmtClusterCreate: {"cluster create", lwt, "INSERT INTO $.cluster (k, id, shards, secret) VALUES ('cluster', ?, ?, ?) IF NOT EXISTS"},
	stmtHistoryRead:   {"history read", serial, "SELECT version, needs, applied_at FROM $.schema_history WHERE component = 'nola'"},
	stmtHistoryWrite:  {"history write", lwt, "INSERT INTO $.schema_history (component, version, needs, applied_at) VALUES ('nola', ?, ?, ?) IF NOT EXISTS"},
	stmtLockTake:      {"lock take", lwt, "INSERT INTO $.schema_lock (k, holder) VALUES ('ddl', ?) IF NOT EXISTS USING TTL ?"},
	stmtLockRenew:     {"lock renew", lwt, "UPDATE $.schema_lock USING TTL ? SET holder = ? WHERE k = 'ddl' IF holder = ?"},
	stmtLockDrop:      {"lock drop", lwt, "DELETE FROM $.schema_lock WHERE k = 'ddl' IF holder = ?"},

	stmtKeyspaceRead:      {"keyspace read", local, "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?"},
	stmtSettingRead:       {"setting read", local, "SELECT value FROM system_views.settings WHERE name = ?"},
	stmtScyllaRead:        {"flavour read", local, "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system' AND table_name = 'scylla_local'"},
	stmtScyllaSettingRead: {"scylla setting read", local, "SELECT value FROM system.config WHERE name = ?"},
	stmtFeaturesRead:      {"features read", local, "SELECT supported_features FROM system.local WHERE key = 'local'"},
	stmtTabletsRead:       {"tablets read", local, "SELECT initial_tablets FROM system_schema.scylla_keyspaces WHERE keyspace_name = ?"},
	stmtAlive:             {"alive", local, "SELECT release_version FROM system.local WHERE key = 'local'"},
	stmtServerRead:        {"server read", local, "SELECT release_version, data_center, toTimestamp(now()) FROM system.local WHERE key = 'local'"},
}

func (s statement) text(keyspace string) string {
	return strings.ReplaceAll(statements[s].text, "$", keyspace)
}

// consistency of the statement, as it is sent.
func (k kind) consistency() gocql.Consistency {
	switch k {
	case serial:
		return gocql.Consistency(gocql.LocalSerial)
	case local:
		return gocql.One
	}
	return gocql.LocalQuorum
}

// link is a session and the texts for its keyspace. Its methods may be called
// at once.
type link struct {
	current atomic.Pointer[gocql.Session]
	slow    *slowNodes
	lwts    atomic.Int64
	texts   [statementsEnd]string
}

func (l *link) session() *gocql.Session { return l.current.Load() }

func newLink(session *gocql.Session, keyspace string, slow *slowNodes) *link {
	l := &link{slow: slow}
	l.current.Store(session)
	for s := range statementsEnd {
		l.texts[s] = s.text(keyspace)
	}
	return l
}

// query makes a statement ready. It is sent once, a plain one to a second
// coordinator too if the first one hangs: who sends it again knows why.
func (l *link) query(ctx context.Context, s statement, args ...any) *gocql.Query {
	q := l.session().Query(l.texts[s], args...).WithContext(ctx).Consistency(statements[s].kind.consistency())
	switch statements[s].kind {
	case lwt:
		q = q.SerialConsistency(gocql.LocalSerial)
	case plain:
		q = q.Idempotent(true).SetSpeculativeExecutionPolicy(l.slow)
	}
	return q
}

func (l *link) exec(ctx context.Context, s statement, args ...any) error {
	return l.query(ctx, s, args...).Exec()
}

// batch starts an unlogged batch: of one partition it is atomic, of several it
// only saves round trips.
func (l *link) batch(ctx context.Context) *gocql.Batch {
	b := l.session().NewBatch(gocql.UnloggedBatch).WithContext(ctx)
	b.SetConsistency(gocql.LocalQuorum)
	return b
}

// row is what a conditional statement answers of the row that it looked at. A
// pointer is nil if the answer does not have the column. Cassandra tells the
// columns of the condition, and only if it did not hold; Scylla tells them always,
// with null for what is not there.
type row struct {
	sealed, mode, trimmed   *int
	lastSeq, finalSeq       *int64
	finalTS, epoch, version *int64
	lane, upload            *gocql.UUID
	holder                  *string
	live                    *int
}

func (r *row) found() bool {
	return r.sealed != nil || r.trimmed != nil || r.lastSeq != nil || r.finalSeq != nil || r.epoch != nil || r.version != nil || r.upload != nil || r.holder != nil
}

func (r *row) columns() map[string]any {
	return map[string]any{
		"sealed": &r.sealed, "mode": &r.mode, "trimmed": &r.trimmed, "last_seq": &r.lastSeq, "final_seq": &r.finalSeq,
		"final_ts": &r.finalTS, "epoch": &r.epoch, "version": &r.version, "lane": &r.lane, "upload": &r.upload,
		"holder": &r.holder, "live": &r.live,
	}
}

func (r *row) head() lane.Head {
	return lane.Head{
		Sealed: deref(r.sealed) != 0, Mode: lane.Mode(deref(r.mode)), Trimmed: deref(r.trimmed) != 0,
		LastSeq: lane.Seq(deref(r.lastSeq)), FinalSeq: lane.Seq(deref(r.finalSeq)), FinalTS: lane.Timestamp(deref(r.finalTS)),
	}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

var errAnswer = errors.New("the answer to a conditional statement cannot be understood")

// cas sends a conditional statement once.
func (l *link) cas(ctx context.Context, s statement, args ...any) (applied bool, r row, err error) {
	l.lwts.Add(1)
	return readCAS(l.query(ctx, s, args...).Iter())
}

// casBatch sends a conditional batch once.
func (l *link) casBatch(b *gocql.Batch) (applied bool, r row, err error) {
	defer func() {
		if recover() != nil { // the driver asserts the type of the first column
			err = errAnswer
		}
	}()
	l.lwts.Add(1)
	columns := r.columns()
	applied, iter, err := l.session().MapExecuteBatchCAS(b, columns)
	if iter != nil {
		err = errors.Join(err, iter.Close())
	}
	return applied, r, err
}

func readCAS(iter *gocql.Iter) (applied bool, r row, err error) {
	columns := r.columns()
	ok := iter.MapScan(columns)
	verdict, isBool := columns["[applied]"].(bool)
	if err := iter.Close(); err != nil {
		return false, row{}, err
	}
	if !ok || !isBool {
		return false, row{}, errAnswer
	}
	return verdict, r, nil
}

// refused reports whether the server will never execute the statement, however
// often it is sent.
func refused(err error) bool {
	var e gocql.RequestError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() {
	case gocql.ErrCodeSyntax, gocql.ErrCodeInvalid, gocql.ErrCodeUnauthorized, gocql.ErrCodeConfig:
		return true
	}
	return false
}

// watch puts another session in the place of one that has lost all connections and
// does not find back: the driver can take a host for connected that it has no
// connection to, and then never tries again. It ends with ctx.
func (l *link) watch(ctx context.Context, dial func() (*gocql.Session, error)) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for lost := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var version string
		err := l.query(ctx, stmtAlive).Scan(&version)
		if lost++; !errors.Is(err, gocql.ErrNoConnections) {
			lost = 0
		}
		if lost < watchLost {
			continue
		}
		if fresh, err := dial(); err == nil {
			l.current.Swap(fresh).Close()
			lost = 0
		}
	}
}

const (
	watchEvery = time.Second
	watchLost  = 2 // looks in a row without a connection
)

// describe says what a statement was about, in errors.
func describe(s statement, err error) error {
	return fmt.Errorf("cqlstore: %s: %w", statements[s].name, err)
}
