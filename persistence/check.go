package persistence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/nolaproject/nola"
)

// Report is what Check found.
type Report struct {
	Cluster ClusterInfo
	// Tables counts rows.
	Tables []TableReport
	// Findings are what does not fit, at most FindingsMax of them.
	Findings []Finding
	// Count is how many there are.
	Count int
}

// TableReport counts what is stored in one table.
type TableReport struct {
	Name  string
	Rows  int
	Bytes int64 // keys and values
}

// Finding is something stored that does not fit.
type Finding struct {
	Table string
	Key   []byte // as it is stored
	What  string
}

// FindingsMax is how many findings a Report tells.
const FindingsMax = 1000

// Check reads everything that is stored and reports what does not fit: records
// that cannot be read, rows in a wrong shard, due rows of what does not exist,
// gaps in backlogs, listed actors that do not exist, module versions without
// their bytes. What is committed meanwhile may be reported falsely.
func (s *Sorted) Check(ctx context.Context) (*Report, error) {
	c := &checker{s: s, report: &Report{Cluster: s.cluster}, tables: make(map[string]*TableReport)}
	var from []byte
	for {
		if err := s.usable(ctx); err != nil {
			return nil, err
		}
		page, err := c.page(from)
		if err != nil {
			return nil, fmt.Errorf("persistence: check: %w", err)
		}
		for _, row := range page {
			c.row(row)
		}
		if len(page) == 0 {
			break
		}
		from = append(slices.Clone(page[len(page)-1].key), 0)
	}
	for _, name := range slices.Sorted(maps.Keys(c.tables)) {
		c.report.Tables = append(c.report.Tables, *c.tables[name])
	}
	return c.report, nil
}

type checker struct {
	s       *Sorted
	report  *Report
	tables  map[string]*TableReport
	backlog struct { // the row before
		shard nola.ShardID
		ref   nola.ActorRef
		row   BacklogRow
	}
}

type storedRow struct{ key, value []byte }

// A page of rows ends at whichever comes first.
const (
	checkRowsMax  = 1024
	checkBytesMax = 8 << 20
)

func (c *checker) page(from []byte) (page []storedRow, err error) {
	size := 0
	err = c.s.m.Scan(from, nil, false, func(key, value []byte) bool {
		page = append(page, storedRow{bytes.Clone(key), bytes.Clone(value)})
		size += len(key) + len(value)
		return len(page) < checkRowsMax && size < checkBytesMax
	})
	return page, err
}

var tableNames = map[Table]string{
	TableDeferred: "deferred", TableMemory: "memory", TableMeta: "actor", TableState: "state", TableTimer: "timer", TableSchedule: "schedule", TableProgress: "progress",
	TableOccurrence: "occurrence", TableUserKey: "user key", TableDue: "due", TableOutcome: "outcome", TableSession: "session",
	TableOutbox: "outbox", TableInbox: "inbox", TableBacklog: "backlog", TableFloors: "floors",
}

var sortedNames = map[byte]string{
	sortedCluster: "cluster", sortedHeads: "head", sortedListing: "listing", sortedCatalog: "catalogue",
	sortedCatalogCounter: "catalogue counter", sortedObjects: "object",
}

// String names the table in messages.
func (t Table) String() string {
	if name, ok := tableNames[t]; ok {
		return name
	}
	return fmt.Sprintf("table %d", uint8(t))
}

func (c *checker) row(row storedRow) {
	kind := byte(0)
	if len(row.key) > 0 {
		kind = row.key[0]
	}
	name, special := sortedNames[kind]
	if !special {
		name = Table(kind).String()
	}
	t := c.tables[name]
	if t == nil {
		t = &TableReport{Name: name}
		c.tables[name] = t
	}
	t.Rows++
	t.Bytes += int64(len(row.key) + len(row.value))

	check := c.shardRow
	if special {
		check = c.specialRow
	}
	if err := check(row); err != nil {
		c.report.Count++
		if len(c.report.Findings) < FindingsMax {
			c.report.Findings = append(c.report.Findings, Finding{Table: name, Key: row.key, What: err.Error()})
		}
	}
}

func (c *checker) specialRow(row storedRow) error {
	switch row.key[0] {
	case sortedCluster:
		_, err := decodeCluster(row.value)
		return err
	case sortedHeads:
		_, _, _, err := decodeHead(row.key, row.value)
		return err
	case sortedListing:
		ref, err := parseListingKey(row.key)
		if err != nil {
			return err
		}
		return c.exists(Row{Table: TableMeta, Shard: c.home(ref), Actor: ref}, "the listed actor %s does not exist", ref)
	case sortedObjects:
		if sum := sha256.Sum256(row.value); !bytes.Equal(sum[:], row.key[1:]) {
			return fmt.Errorf("the bytes have the digest %x", sum)
		}
	case sortedCatalog:
		return c.catalogRow(row)
	}
	return nil
}

func (c *checker) catalogRow(row storedRow) error {
	if len(row.key) < catalogPrefixBytes {
		return errKey
	}
	key := string(row.key[catalogPrefixBytes:])
	value, _, err := decodeCatalogValue(row.value)
	if err != nil {
		return err
	}
	switch Space(row.key[1]) {
	case SpaceNamespace:
		_, err = decodeNamespace(key, value)
	case SpaceModule:
		_, err = decodeModule(key, value)
	case SpaceSchedule:
		_, err = decodeScheduleEntry(key, value)
	case SpaceCalendar:
		_, err = decodeCalendarEntry(key, value)
	case SpacePlacement:
		_, err = decodePlacement(key, value)
	case SpaceVersion:
		rec, err := decodeModuleVersion(key, value)
		if err != nil {
			return err
		}
		_, found, err := c.s.m.Get(objectKey(rec.Digest))
		if err == nil && !found {
			err = fmt.Errorf("version %d of module %s in namespace %s has no bytes: object %x is missing", rec.Version, rec.Name, rec.Namespace, rec.Digest)
		}
		return err
	default:
		err = fmt.Errorf("the catalogue has no space %d", row.key[1])
	}
	return err
}

func (c *checker) shardRow(row storedRow) error {
	if len(row.key) < 5 {
		return errKey
	}
	table := Table(row.key[0])
	shard := nola.ShardID(binary.BigEndian.Uint32(row.key[1:]))
	if int(shard) >= c.s.cluster.Shards {
		return fmt.Errorf("the row is of shard %d of %d", shard, c.s.cluster.Shards)
	}
	key := row.key[5:]
	var ref nola.ActorRef
	if table.OfActor() {
		var err error
		if ref, key, err = nola.ParseCanonical(key); err != nil {
			return err
		}
		if err := c.lives(ref, shard); err != nil {
			return err
		}
	}
	switch table {
	case TableMeta:
		_, err := decodeMeta(row.value)
		return err
	case TableState:
		_, err := body("state", row.value)
		return err
	case TableTimer:
		_, err := decodeTimer(key, row.value)
		return err
	case TableDeferred:
		_, err := decodeDeferred(key, row.value)
		return err
	case TableMemory:
		if len(key) == 0 {
			_, err := decodeMemory(row.value)
			return err
		}
		_, _, err := decodeMemoryPage(key, row.value)
		return err
	case TableSchedule:
		_, err := decodeSchedule(ref, key, row.value)
		return err
	case TableProgress:
		if _, _, err := decodeProgress(row.value); err != nil {
			return err
		}
		return c.exists(Row{Table: TableSchedule, Shard: shard, Actor: ref, Key: key}, "progress of a schedule of %s that does not exist", ref)
	case TableOccurrence:
		_, _, err := decodeOccurrence(row.value)
		return err
	case TableUserKey:
		if len(key) == 0 {
			_, err := decodeUserKeys(row.value)
			return err
		}
		_, err := decodeOutcome(row.value)
		return err
	case TableOutcome, TableSession:
		_, err := decodeOutcome(row.value)
		return err
	case TableDue:
		return c.dueRow(shard, key, row.value)
	case TableBacklog:
		return c.backlogRow(shard, key, row.value)
	case TableOutbox:
		_, err := decodeOutbox(key, row.value)
		return err
	case TableInbox:
		_, err := decodeInbox(0, row.value)
		return err
	case TableFloors:
		_, err := decodeFloors(row.value)
		return err
	}
	return fmt.Errorf("there is no table %d", row.key[0])
}

func (c *checker) dueRow(shard nola.ShardID, key, value []byte) error {
	row, err := decodeDue(key, value)
	if err != nil {
		return err
	}
	if err := c.lives(row.Target, shard); err != nil {
		return err
	}
	of := Row{Shard: shard, Actor: row.Target}
	switch row.Kind {
	case DueTimer:
		of.Table, of.Key = TableTimer, []byte(row.Name)
	case DueSchedule, DueReminder:
		of.Table, of.Key = TableSchedule, appendScheduleKey(nil, row.Kind == DueReminder, row.Name)
	case DueDeferred:
		of.Table, of.Key = TableDeferred, []byte(row.Name)
	case DueKeyExpiry:
		of.Table = TableUserKey
	case DueCast:
		if row.Invocation == nil {
			return fmt.Errorf("due at %s for %s: a cast without an invocation", row.Due, row.Target)
		}
		return nil
	default:
		return fmt.Errorf("due at %s for %s: there is no kind %d", row.Due, row.Target, row.Kind)
	}
	return c.exists(of, "due at %s for %s: there is no %s %q", row.Due, row.Target, of.Table, row.Name)
}

func (c *checker) backlogRow(shard nola.ShardID, key, value []byte) error {
	ref, _, err := parseBacklogKey(key)
	if err != nil {
		return err
	}
	row, err := decodeBacklog(key, value)
	if err != nil {
		return err
	}
	before := c.backlog
	c.backlog.shard, c.backlog.ref, c.backlog.row = shard, ref, row
	if before.row.Invocation != nil && before.shard == shard && before.ref == ref {
		switch {
		case row.Number != before.row.Number+1:
			return fmt.Errorf("the backlog of %s has number %d behind number %d", ref, row.Number, before.row.Number)
		case row.Total < before.row.Total:
			return fmt.Errorf("the backlog of %s has a total of %d bytes behind %d", ref, row.Total, before.row.Total)
		}
	}
	if row.Invocation == nil {
		return fmt.Errorf("number %d in the backlog of %s has no invocation", row.Number, ref)
	}
	return c.lives(ref, shard)
}

func (c *checker) home(ref nola.ActorRef) nola.ShardID {
	return nola.ShardOf(ref, c.s.cluster.Shards)
}

func (c *checker) lives(ref nola.ActorRef, shard nola.ShardID) error {
	if home := c.home(ref); home != shard {
		return fmt.Errorf("%s lives in shard %d, the row is in shard %d", ref, home, shard)
	}
	return nil
}

func (c *checker) exists(row Row, format string, args ...any) error {
	_, found, err := c.s.Get(row)
	if err == nil && !found {
		err = fmt.Errorf(format, args...)
	}
	return err
}
