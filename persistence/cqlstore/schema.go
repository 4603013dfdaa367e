package cqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence"
)

// SchemaVersion is the version of the schema that this program works with.
const SchemaVersion = 2

// step makes one version of the schema out of the one before. Its statements may
// be repeated: a run that was cut short is done again from the start. A program
// of version needs or newer can work with the outcome.
type step struct {
	version    int
	needs      int
	statements []string
}

// steps are all there ever were, in order. One that was released never changes.
var steps = []step{{version: 1, needs: 1, statements: []string{
	// A lane: its head (kind 0), touched by conditional statements alone, and the
	// slots of its ring (kind 1), written in place.
	`CREATE TABLE IF NOT EXISTS $.lane_log (
		lane uuid, kind tinyint, slot int,
		node text, addr text, mode int, ring_size int, sealed int, last_seq bigint, final_seq bigint, final_ts bigint, trimmed int,
		seq bigint, prev bigint, ts bigint, applied_seq bigint, committed_seq bigint, crc bigint, body blob,
		PRIMARY KEY ((lane), kind, slot)) WITH compaction = {'class': 'SizeTieredCompactionStrategy'}`,
	`CREATE TABLE IF NOT EXISTS $.lane_chunks (lane uuid, chunks uuid, part int, data blob, PRIMARY KEY ((lane), chunks, part))`,
	`CREATE TABLE IF NOT EXISTS $.lanes (p tinyint, lane uuid, node text, PRIMARY KEY ((p), lane))`,
	`CREATE TABLE IF NOT EXISTS $.shards (shard int PRIMARY KEY, epoch bigint, lane uuid, node text, addr text, handoff_to text, ts_floor bigint)`,
	`CREATE TABLE IF NOT EXISTS $.nodes (
		p tinyint, node text, name text, addr text, zone text, labels map<text, text>, state int, beat bigint, lease_ms int, shards int, load double, build text, started bigint,
		PRIMARY KEY ((p), node)) WITH gc_grace_seconds = 3600`,
	// Rows. Those of a shard lie in buckets, whose names are in a table of their own.
	`CREATE TABLE IF NOT EXISTS $.actor_rows (shard int, actor blob, tbl tinyint, k blob, v blob,
		PRIMARY KEY ((shard, actor), tbl, k)) WITH compaction = {'class': 'LeveledCompactionStrategy'}`,
	`CREATE TABLE IF NOT EXISTS $.shard_rows (shard int, tbl tinyint, bucket blob, k blob, v blob,
		PRIMARY KEY ((shard, tbl, bucket), k)) WITH compaction = {'class': 'LeveledCompactionStrategy'}`,
	`CREATE TABLE IF NOT EXISTS $.buckets (shard int, tbl tinyint, bucket blob, PRIMARY KEY ((shard), tbl, bucket)) WITH compaction = {'class': 'LeveledCompactionStrategy'}`,
	`CREATE TABLE IF NOT EXISTS $.shard_numbers (shard int PRIMARY KEY, seq bigint)`,
	`CREATE TABLE IF NOT EXISTS $.listing (ns text, bucket smallint, k blob, PRIMARY KEY ((ns, bucket), k)) WITH compaction = {'class': 'LeveledCompactionStrategy'}`,
	`CREATE TABLE IF NOT EXISTS $.objects (digest blob PRIMARY KEY, upload uuid, size bigint, parts int)`,
	`CREATE TABLE IF NOT EXISTS $.object_parts (upload uuid, part int, data blob, PRIMARY KEY ((upload, part)))`,
	`CREATE TABLE IF NOT EXISTS $.catalogue (space tinyint, part blob, bucket smallint, k blob, version bigint, live int, value blob, PRIMARY KEY ((space, part, bucket), k))`,
	`CREATE TABLE IF NOT EXISTS $.cluster (k text PRIMARY KEY, id uuid, shards int, secret blob)`,
}}, {version: 2, needs: 1, statements: []string{
	// The lanes whose slots are gone, and since when (milliseconds since 1970).
	`CREATE TABLE IF NOT EXISTS $.trimmed_lanes (p tinyint, lane uuid, at bigint, PRIMARY KEY ((p), lane))`,
}}}

// first are the tables that must be there before anybody can take the lock.
var first = []string{
	`CREATE TABLE IF NOT EXISTS $.schema_lock (k text PRIMARY KEY, holder text)`,
	`CREATE TABLE IF NOT EXISTS $.schema_history (component text, version int, needs int, applied_at bigint, PRIMARY KEY ((component), version))`,
}

// Schema says what SetupSchema makes.
type Schema struct {
	// Replicas is how many copies of a row each data centre of Datacenters keeps:
	// default 3. A commit waits for more than half of them.
	Replicas int
	// Datacenters are their names: default the one that answers.
	Datacenters []string
	// Shards is the number of shards of a new cluster, 1 to 65,536: default
	// ShardsDefault. It never changes.
	Shards int
	// NoTablets makes a keyspace without tablets, for Scylla before 2025.4, whose
	// tablets know no conditional writes.
	NoTablets bool
}

// SchemaStatus is what a keyspace holds.
type SchemaStatus struct {
	Keyspace    string
	Exists      bool
	Replication string
	Version     int // 0: none
	Needs       int // the oldest program's version that can work with it
	Known       int // SchemaVersion
	Applied     time.Time
	Shards      int // 0: no cluster yet
	ClusterID   [16]byte
	Server      Server
}

// Usable reports why this program cannot work with the schema, or nil.
func (s SchemaStatus) Usable() error {
	switch {
	case !s.Exists:
		return fmt.Errorf("%w: there is no keyspace %s; make it with nolad schema setup", ErrNoSchema, s.Keyspace)
	case s.Server.Tablets && s.Server.BareTablets:
		return fmt.Errorf("%w, which needs version 2025.4, and keyspace %s has tablets: update ScyllaDB, or drop the keyspace and make it with nolad schema setup --no-tablets", ErrTablets, s.Keyspace)
	case s.Version == 0 || s.Shards == 0 && s.Version <= SchemaVersion:
		return fmt.Errorf("%w: the setup of keyspace %s was never finished; run nolad schema setup", ErrNoSchema, s.Keyspace)
	case s.Version < SchemaVersion:
		return fmt.Errorf("%w: keyspace %s has version %d, this program needs %d; run nolad schema update with it", ErrSchema, s.Keyspace, s.Version, SchemaVersion)
	case s.Needs > SchemaVersion:
		return fmt.Errorf("%w: keyspace %s has version %d, which needs a program that knows version %d, and this one knows %d; run a newer nolad", ErrSchema, s.Keyspace, s.Version, s.Needs, SchemaVersion)
	}
	return nil
}

// ReadSchema answers what the keyspace of c holds.
func ReadSchema(ctx context.Context, c Config) (SchemaStatus, error) {
	l, c, err := connect(c)
	if err != nil {
		return SchemaStatus{}, err
	}
	defer l.session().Close()
	return c.status(ctx, l)
}

func connect(c Config) (*link, Config, error) {
	if err := c.Validate(); err != nil {
		return nil, c, err
	}
	c = c.withDefaults()
	session, err := c.dial()
	if err != nil {
		return nil, c, err
	}
	return newLink(session, c.Keyspace, c.slow), c, nil
}

func (c Config) status(ctx context.Context, l *link) (SchemaStatus, error) {
	s := SchemaStatus{Keyspace: c.Keyspace, Known: SchemaVersion}
	var err error
	if s.Server, err = c.look(ctx, l); err != nil {
		return s, err
	}
	replication := map[string]string{}
	switch err := l.query(ctx, stmtKeyspaceRead, c.Keyspace).Scan(&replication); {
	case errors.Is(err, gocql.ErrNotFound):
		return s, nil
	case err != nil:
		return s, describe(stmtKeyspaceRead, err)
	}
	s.Exists = true
	var parts []string
	for k, v := range replication {
		if k != "class" {
			parts = append(parts, k+": "+v)
		}
	}
	slices.Sort(parts)
	class := replication["class"]
	s.Replication = class[strings.LastIndexByte(class, '.')+1:] + " {" + strings.Join(parts, ", ") + "}"
	iter := l.query(ctx, stmtHistoryRead).Iter()
	var version, needs int
	var at int64
	for iter.Scan(&version, &needs, &at) {
		if version > s.Version {
			s.Version, s.Needs, s.Applied = version, needs, time.UnixMilli(at).UTC()
		}
	}
	if err := iter.Close(); err != nil {
		if missingTable(err) {
			return s, nil
		}
		return s, describe(stmtHistoryRead, err)
	}
	if s.Version == 0 {
		return s, nil
	}
	var id gocql.UUID
	var secret []byte
	switch err := l.query(ctx, stmtClusterRead).Scan(&id, &s.Shards, &secret); {
	case err == nil || errors.Is(err, gocql.ErrNotFound) || missingTable(err):
	default:
		return s, describe(stmtClusterRead, err)
	}
	s.ClusterID = id
	return s, nil
}

// missingTable reports whether the server does not know a table.
func missingTable(err error) bool {
	var e gocql.RequestError
	return errors.As(err, &e) && e.Code() == gocql.ErrCodeInvalid && (strings.Contains(e.Message(), "does not exist") || strings.Contains(e.Message(), "unconfigured table"))
}

// SetupSchema makes the keyspace, the tables and the cluster's facts, as far as
// they are missing. Of two at once one works, and the other waits for it and
// takes what it finds, also if that is another number of shards. It answers
// ErrSchema for a schema that it does not know, and ErrTablets where that must be
// made without tablets.
func SetupSchema(ctx context.Context, c Config, schema Schema) (SchemaStatus, error) {
	l, c, err := connect(c)
	if err != nil {
		return SchemaStatus{}, err
	}
	defer l.session().Close()
	setDefault(&schema.Replicas, 3)
	setDefault(&schema.Shards, ShardsDefault)
	if schema.Replicas < 1 || schema.Replicas > 20 || schema.Shards < 1 || schema.Shards > persistence.ShardsMax {
		return SchemaStatus{}, fmt.Errorf("cqlstore: %d replicas and %d shards: ask for 1 to 20, and 1 to %d", schema.Replicas, schema.Shards, persistence.ShardsMax)
	}
	status, err := c.status(ctx, l)
	if err != nil {
		return status, err
	}
	switch err := status.Usable(); {
	case errors.Is(err, ErrTablets):
		return status, err
	case !status.Exists && status.Server.BareTablets && !schema.NoTablets:
		return status, fmt.Errorf("%w, which needs version 2025.4: run nolad schema setup --no-tablets", ErrTablets)
	case !status.Exists:
		if len(schema.Datacenters) == 0 {
			schema.Datacenters = []string{status.Server.Datacenter}
		}
		if err := l.define(ctx, schema.keyspace(c.Keyspace)); err != nil {
			return status, err
		}
	}
	return c.bring(ctx, l, schema.Shards)
}

// UpdateSchema brings the schema of a keyspace that was set up to SchemaVersion.
func UpdateSchema(ctx context.Context, c Config) (SchemaStatus, error) {
	l, c, err := connect(c)
	if err != nil {
		return SchemaStatus{}, err
	}
	defer l.session().Close()
	status, err := c.status(ctx, l)
	if err != nil {
		return status, err
	}
	if err := status.Usable(); status.Version == 0 || errors.Is(err, ErrTablets) {
		return status, err
	}
	return c.bring(ctx, l, 0)
}

func (s Schema) keyspace(name string) string {
	var dcs strings.Builder
	for _, dc := range s.Datacenters {
		fmt.Fprintf(&dcs, ", '%s': %d", strings.ReplaceAll(dc, "'", "''"), s.Replicas)
	}
	text := fmt.Sprintf("CREATE KEYSPACE IF NOT EXISTS %s WITH replication = {'class': 'NetworkTopologyStrategy'%s} AND durable_writes = true", name, dcs.String())
	if s.NoTablets {
		text += " AND tablets = {'enabled': false}"
	}
	return text
}

// bring makes what is missing under the lock. shards is that of a new cluster, 0
// if there must be one.
func (c Config) bring(ctx context.Context, l *link, shards int) (status SchemaStatus, err error) {
	for _, text := range first {
		if err := l.define(ctx, strings.ReplaceAll(text, "$", c.Keyspace)); err != nil {
			return status, err
		}
	}
	ctx, unlock, err := c.lock(ctx, l)
	if err != nil {
		return status, err
	}
	defer func() { err = errors.Join(unlock(), err) }()
	if status, err = c.status(ctx, l); err != nil {
		return status, err
	}
	if status.Version > SchemaVersion {
		return status, fmt.Errorf("%w: keyspace %s has version %d and this program knows %d: run a newer nolad", ErrSchema, c.Keyspace, status.Version, SchemaVersion)
	}
	for _, step := range steps {
		if step.version <= status.Version {
			continue
		}
		for _, text := range step.statements {
			if err := l.define(ctx, strings.ReplaceAll(text, "$", c.Keyspace)); err != nil {
				return status, err
			}
		}
		if err := l.settle(ctx, stmtHistoryWrite, step.version, step.needs, c.Now().UnixMilli()); err != nil {
			return status, err
		}
	}
	if status.Shards == 0 && shards > 0 {
		if err := l.found(ctx, shards); err != nil {
			return status, err
		}
	}
	return c.status(ctx, l)
}

// define changes the schema and waits until all nodes have it.
func (l *link) define(ctx context.Context, text string) error {
	if err := l.session().Query(text).WithContext(ctx).Consistency(gocql.LocalQuorum).Exec(); err != nil {
		return fmt.Errorf("cqlstore: change the schema: %q: %w", firstLine(text), err)
	}
	if err := l.session().AwaitSchemaAgreement(ctx); err != nil {
		return fmt.Errorf("cqlstore: the nodes do not agree on the schema (is one of them down?): %w", err)
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// found makes the facts of a new cluster: the rows of its shards first, so that
// whoever sees the facts finds them.
func (l *link) found(ctx context.Context, shards int) error {
	work := make(chan int)
	const writers = 8
	errs := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for shard := range work {
				if err == nil {
					err = l.settle(ctx, stmtShardCreate, shard, gocql.UUID{})
				}
			}
			errs <- err
		}()
	}
	for shard := range shards {
		work <- shard
	}
	close(work)
	var err error
	for range writers {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	var id gocql.UUID
	secret := make([]byte, 32)
	_, _ = rand.Read(id[:])  // never fails (crypto/rand)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	return l.settle(ctx, stmtClusterCreate, id, shards, secret)
}

// settle sends a conditional statement until the answer is definite, applied or
// not: of an insertion IF NOT EXISTS, that there is a row.
func (l *link) settle(ctx context.Context, s statement, args ...any) error {
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		_, _, err := l.cas(ctx, s, args...)
		if err == nil {
			return nil
		}
		if refused(err) || ctx.Err() != nil {
			return describe(s, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return describe(s, err)
		}
	}
}

// The pauses before a statement is sent again, whose fate is not known.
const (
	pauseMin = 20 * time.Millisecond
	pauseMax = 500 * time.Millisecond
)

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errLockLost ends a change of the schema that others may have taken for dead.
var errLockLost = errors.New("cqlstore: the lock of the schema could not be renewed in time, or is another's: run the command again, it goes on where this one ended")

// The lock of the schema goes by itself if its holder does not renew it: after as long
// as a cluster that answers at all takes for many statements.
const (
	lockTimeouts = 24 // of one statement
	lockMin      = 2 * time.Second
	lockMax      = 2 * time.Minute
	lockRenewals = 8 // in the time after which it goes
)

func (c Config) lockFor() time.Duration {
	return min(max(lockTimeouts*c.Timeout, lockMin), lockMax).Truncate(time.Second)
}

func (c Config) lockSeconds() int { return int(c.lockFor() / time.Second) }

// lock keeps other changes of the schema away until it is unlocked. The context that it
// answers ends if the lock is lost; then unlock answers errLockLost.
func (c Config) lock(ctx context.Context, l *link) (held context.Context, unlock func() error, err error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	holder := fmt.Sprintf("%s %x", c.Name, id)
	told := false
	for {
		asked := time.Now()
		applied, r, err := l.cas(ctx, stmtLockTake, holder, c.lockSeconds())
		if err == nil && !applied && deref(r.holder) == holder { // taken some time ago, and the answer was lost
			asked = time.Now()
			applied, r, err = l.cas(ctx, stmtLockRenew, c.lockSeconds(), holder, holder)
		}
		switch {
		case err != nil && (refused(err) || ctx.Err() != nil):
			return nil, nil, describe(stmtLockTake, err)
		case err == nil && applied:
			held, unlock := c.hold(ctx, l, holder, asked)
			return held, unlock, nil
		case err == nil && !told:
			told = true
			c.Log.Info("somebody else changes the schema, waiting", "keyspace", c.Keyspace, "holder", deref(r.holder))
		}
		if err := sleep(ctx, pauseMax); err != nil {
			return nil, nil, fmt.Errorf("cqlstore: wait for the lock of the schema: %w", err)
		}
	}
}

// hold renews a lock until it is unlocked, which waits for its goroutine, or lost. It
// was taken, or renewed, no earlier than since.
func (c Config) hold(ctx context.Context, l *link, holder string, since time.Time) (held context.Context, unlock func() error) {
	held, end := context.WithCancelCause(ctx)
	every := c.lockFor() / lockRenewals
	renew := func() error {
		asked := time.Now()
		ctx, cancel := context.WithTimeout(held, every)
		defer cancel()
		applied, _, err := l.cas(ctx, stmtLockRenew, c.lockSeconds(), holder, holder)
		switch {
		case err == nil && applied:
			since = asked
		case err == nil, refused(err), time.Since(since) > c.lockFor()/2:
			return errLockLost
		}
		return nil
	}
	var renewing sync.WaitGroup
	renewing.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-held.Done():
				return
			}
			if err := renew(); err != nil {
				end(err)
				return
			}
		}
	})
	return held, func() (lost error) {
		end(nil)
		renewing.Wait()
		if errors.Is(context.Cause(held), errLockLost) {
			lost = errLockLost
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Timeout)
		defer cancel()
		if _, _, err := l.cas(ctx, stmtLockDrop, holder); err != nil {
			return errors.Join(lost, describe(stmtLockDrop, err))
		}
		return lost
	}
}
