package cqlfake

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/datastax/go-cassandra-native-protocol/datatype"
	"github.com/datastax/go-cassandra-native-protocol/message"
	"github.com/datastax/go-cassandra-native-protocol/primitive"
)

// engine holds the tables. Its methods are called under the server's mutex.
type engine struct {
	flavour   Flavour
	tablets   Tablets
	inTablets map[string]bool // keyspaces
	keyspaces map[string]map[string]*table
	ballot    int64 // timestamp of the last conditional write
}

// result is what a statement answers: rows, or nothing.
type result struct {
	columns []*message.ColumnMetadata // nil: nothing
	rows    message.RowSet
	paging  []byte
	change  *message.SchemaChangeResult
}

func invalid(format string, args ...any) message.Message {
	return &message.Invalid{ErrorMessage: fmt.Sprintf(format, args...)}
}

// refusal is an error to answer. The engine panics with it, and run recovers it.
type refusal struct{ message message.Message }

func refuse(format string, args ...any) { panic(refusal{invalid(format, args...)}) }

// run executes f and answers its refusal, if there is one.
func run(f func()) (refused message.Message) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case refusal:
			refused = e.message
		default:
			panic(e)
		}
	}()
	f()
	return nil
}

func (e *engine) table(n name) *table {
	tables, ok := e.keyspaces[n.keyspace]
	if !ok {
		refuse("Keyspace '%s' does not exist", n.keyspace)
	}
	t, ok := tables[n.table]
	if !ok {
		refuse("table %s does not exist", n)
	}
	return t
}

func (t *table) column(column string) int {
	i := t.index(column)
	if i < 0 {
		refuse("Undefined column name %s in table %s", column, t.name)
	}
	return i
}

func (t *table) metadata(i int) *message.ColumnMetadata {
	return &message.ColumnMetadata{Keyspace: t.name.keyspace, Table: t.name.table, Name: t.columns[i].name, Type: t.columns[i].kind}
}

// describe answers the bind markers of a statement in their order, and which of
// them are the partition key, and the columns of its rows.
func (e *engine) describe(statement any, binds int) (variables message.VariablesMetadata, rows message.RowsMetadata) {
	if binds == 0 && !isChoice(statement) {
		return variables, rows
	}
	variables.Columns = make([]*message.ColumnMetadata, binds)
	set := func(t *table, v term, c *message.ColumnMetadata) {
		if v.bind >= 0 {
			c.Keyspace, c.Table = t.name.keyspace, t.name.table
			variables.Columns[v.bind] = c
		}
	}
	keys := map[int]int{} // bind markers of the partition key, by column
	relations := func(t *table, all []relation) {
		for _, r := range all {
			i := t.column(r.column)
			set(t, r.value, t.metadata(i))
			if i < t.keys && r.value.bind >= 0 {
				keys[i] = r.value.bind
			}
		}
	}
	var t *table
	switch s := statement.(type) {
	case *choice:
		t = e.table(s.table)
		relations(t, s.where)
		if s.limit != nil {
			set(t, *s.limit, &message.ColumnMetadata{Name: "[limit]", Type: datatype.Int})
		}
		rows.Columns = t.selected(s)
		rows.ColumnCount = int32(len(rows.Columns)) //nolint:gosec // few
	case *change:
		t = e.table(s.table)
		relations(t, s.set)
		relations(t, s.where)
		for _, r := range s.conditions { // a condition on the key is none
			set(t, r.value, t.metadata(t.column(r.column)))
		}
		if s.timestamp != nil {
			set(t, *s.timestamp, &message.ColumnMetadata{Name: "[timestamp]", Type: datatype.Bigint})
		}
		if s.ttl != nil {
			set(t, *s.ttl, &message.ColumnMetadata{Name: "[ttl]", Type: datatype.Int})
		}
	}
	if len(keys) == t.keys {
		for i := range t.keys {
			variables.PkIndices = append(variables.PkIndices, uint16(keys[i])) //nolint:gosec // few
		}
	}
	return variables, rows
}

func isChoice(statement any) bool {
	_, ok := statement.(*choice)
	return ok
}

// execute runs one statement that is not part of a batch.
func (e *engine) execute(statement any, values [][]byte, page page) result {
	switch s := statement.(type) {
	case *choice:
		return e.choose(s, values, page)
	case *change:
		return e.change([]*change{s}, [][][]byte{values})
	case use:
		return result{}
	}
	return e.define(statement)
}

func (e *engine) define(statement any) result {
	changed := &message.SchemaChangeResult{ChangeType: primitive.SchemaChangeTypeCreated, Target: primitive.SchemaChangeTargetTable}
	switch s := statement.(type) {
	case createKeyspace:
		changed.Target, changed.Keyspace = primitive.SchemaChangeTargetKeyspace, s.keyspace
		if _, ok := e.keyspaces[s.keyspace]; ok {
			if !s.ifNotExists {
				panic(refusal{&message.AlreadyExists{ErrorMessage: "Cannot add existing keyspace", Keyspace: s.keyspace}})
			}
			return result{}
		}
		if s.replication["class"] == "" {
			refuse("Missing replication strategy class")
		}
		if s.tablets != nil && e.flavour != Scylla {
			refuse("Unknown property 'tablets'")
		}
		e.keyspaces[s.keyspace] = map[string]*table{}
		e.put(name{"system_schema", "keyspaces"}, encodeText(s.keyspace), []byte{1}, encodeMap(s.replication))
		if e.tablets != NoTablets && s.tablets["enabled"] != "false" {
			e.inTablets[s.keyspace] = true
			e.put(name{"system_schema", "scylla_keyspaces"}, encodeText(s.keyspace), []byte{0, 0, 0, 0})
		}
	case *createTable:
		changed.Keyspace, changed.Object = s.table.keyspace, s.table.table
		if e.createTable(s) {
			e.put(name{"system_schema", "tables"}, encodeText(s.table.keyspace), encodeText(s.table.table))
		} else {
			return result{}
		}
	case addColumns:
		t := e.table(s.table)
		changed.ChangeType, changed.Keyspace, changed.Object = primitive.SchemaChangeTypeUpdated, s.table.keyspace, s.table.table
		for _, c := range s.columns {
			if t.index(c.name) >= 0 {
				refuse("Column with name '%s' already exists", c.name)
			}
			t.columns = append(t.columns, c) // at the end, as rows name their cells by index
		}
	case drop:
		tables, ok := e.keyspaces[s.table.keyspace]
		changed.ChangeType, changed.Keyspace, changed.Object = primitive.SchemaChangeTypeDropped, s.table.keyspace, s.table.table
		if s.table.table == "" {
			changed.Target = primitive.SchemaChangeTargetKeyspace
			delete(e.keyspaces, s.table.keyspace)
			delete(e.inTablets, s.table.keyspace)
		} else {
			_, ok = tables[s.table.table]
			delete(tables, s.table.table)
		}
		if !ok && !s.ifExists {
			refuse("%s does not exist", s.table)
		}
	}
	return result{change: changed}
}

func (e *engine) createTable(s *createTable) bool {
	tables, ok := e.keyspaces[s.table.keyspace]
	if !ok {
		refuse("Keyspace '%s' does not exist", s.table.keyspace)
	}
	if _, ok := tables[s.table.table]; ok {
		if !s.ifNotExists {
			panic(refusal{&message.AlreadyExists{ErrorMessage: "Cannot add already existing table", Keyspace: s.table.keyspace, Table: s.table.table}})
		}
		return false
	}
	t := &table{name: s.table, keys: len(s.partition), orders: len(s.clustering)}
	for _, n := range slices.Concat(s.partition, s.clustering) {
		i := slices.IndexFunc(s.columns, func(c column) bool { return c.name == n })
		if i < 0 {
			refuse("Unknown definition %s referenced in PRIMARY KEY", n)
		}
		t.columns = append(t.columns, s.columns[i])
		s.columns = slices.Delete(s.columns, i, i+1)
	}
	if t.keys == 0 {
		refuse("No PRIMARY KEY specified for table '%s'", s.table)
	}
	slices.SortFunc(s.columns, func(a, b column) int { return strings.Compare(a.name, b.name) })
	t.columns = append(t.columns, s.columns...)
	for _, n := range s.clustering {
		t.descending = append(t.descending, s.descending[n])
	}
	tables[s.table.table] = t
	return true
}

// put writes a row of a system table, whose columns are given in their order.
func (e *engine) put(n name, values ...[]byte) {
	t := e.table(n)
	p := t.partition(values[:t.keys])
	key := values[t.keys : t.keys+t.orders]
	id := t.rowID(key)
	e.ballot++
	p.put(id, key, -1, cell{value: []byte{1}, written: e.ballot})
	for i := t.keys + t.orders; i < len(values); i++ {
		p.put(id, key, i, cell{value: values[i], written: e.ballot})
	}
}

func (t *table) rowID(key [][]byte) string {
	var id []byte
	for i, value := range key {
		id = t.appendOrdered(id, i, value)
	}
	return string(id)
}

// valueOf answers a term as the bytes of its type.
func valueOf(v term, kind datatype.DataType, values [][]byte) []byte {
	if v.bind >= 0 {
		if v.bind >= len(values) {
			refuse("Invalid amount of bind variables")
		}
		return values[v.bind]
	}
	value, ok := literal(v.literal, kind.Code())
	if !ok {
		refuse("Invalid constant (%s) of type %s", v.literal.text, kind)
	}
	return value
}

func literal(t token, code primitive.DataTypeCode) ([]byte, bool) {
	widths := map[primitive.DataTypeCode]int{
		primitive.DataTypeCodeBigint: 8, primitive.DataTypeCodeTimestamp: 8, primitive.DataTypeCodeInt: 4,
		primitive.DataTypeCodeSmallint: 2, primitive.DataTypeCodeTinyint: 1,
	}
	switch {
	case t.kind == tokenWord && t.text == "null":
		return nil, true
	case t.kind == tokenWord && code == primitive.DataTypeCodeBoolean:
		return map[string][]byte{"true": {1}, "false": {0}}[t.text], true
	case t.kind == tokenNumber && widths[code] > 0:
		n, err := strconv.ParseInt(t.text, 10, 8*widths[code])
		b := binary.BigEndian.AppendUint64(nil, uint64(n)) //nolint:gosec // two's complement
		return b[8-widths[code]:], err == nil
	case t.kind == tokenText && code == primitive.DataTypeCodeVarchar:
		return []byte(t.text), true
	case t.kind == tokenBlob && code == primitive.DataTypeCodeBlob:
		b, err := hex.DecodeString(t.text)
		return b, err == nil
	}
	return nil, false
}

// span are the rows of a statement's WHERE: of one partition, or, with no key,
// of all.
type span struct {
	key      [][]byte
	order    [][]byte // the leading columns that are given
	from, to string   // row ids: from <= id < to
}

func (t *table) span(where []relation, values [][]byte) span {
	var s span
	given := make([][]byte, t.keys+t.orders)
	var bounds []relation
	for _, r := range where {
		i := t.column(r.column)
		value := valueOf(r.value, t.columns[i].kind, values)
		switch {
		case value == nil:
			refuse("Invalid null value for %s", r.column)
		case i >= len(given):
			refuse("Cannot execute this query as it might involve data filtering and thus may have unpredictable performance. If you want to execute this query despite the performance unpredictability, use ALLOW FILTERING")
		case r.operator != "=":
			bounds = append(bounds, r)
		case given[i] != nil:
			refuse("%s cannot be restricted by more than one relation if it includes an Equal", r.column)
		default:
			given[i] = value
		}
	}
	if len(where) == 0 {
		return span{to: lastID}
	}
	s.key = given[:t.keys]
	if slices.ContainsFunc(s.key, func(v []byte) bool { return v == nil }) {
		refuse("Some partition key parts are missing in %s", t.name)
	}
	for _, v := range given[t.keys:] {
		if v == nil {
			break
		}
		s.order = append(s.order, v)
	}
	for i, v := range given[t.keys+len(s.order):] {
		if v != nil {
			refuse("PRIMARY KEY column \"%s\" cannot be restricted as a preceding column is not restricted by an equal relation", t.columns[t.keys+len(s.order)+i].name)
		}
	}
	s.from = t.rowID(s.order)
	s.to = after(s.from)
	for _, r := range bounds {
		t.bound(&s, r, values)
	}
	return s
}

// bound narrows a span by one comparison.
func (t *table) bound(s *span, r relation, values [][]byte) {
	order := len(s.order)
	i := t.column(r.column)
	if i != t.keys+order {
		refuse("PRIMARY KEY column \"%s\" cannot be restricted by %s here", r.column, r.operator)
	}
	id := string(t.appendOrdered([]byte(t.rowID(s.order)), order, valueOf(r.value, t.columns[i].kind, values)))
	operator := r.operator
	if t.descending[order] {
		operator = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}[operator]
	}
	switch operator {
	case ">=":
		s.from = max(s.from, id)
	case ">":
		s.from = max(s.from, after(id))
	case "<":
		s.to = min(s.to, id)
	case "<=":
		s.to = min(s.to, after(id))
	}
}

func (t *table) selected(s *choice) (all []*message.ColumnMetadata) {
	if s.columns == nil {
		for i := range t.columns {
			all = append(all, t.metadata(i))
		}
		return all
	}
	for _, c := range s.columns {
		if c == nowColumn {
			all = append(all, &message.ColumnMetadata{Keyspace: t.name.keyspace, Table: t.name.table, Name: c, Type: datatype.Timestamp})
			continue
		}
		all = append(all, t.metadata(t.column(c)))
	}
	return all
}

// page is which rows of a result are asked for.
type page struct {
	size  int    // 0: all
	state []byte // nil: from the start
}

func (e *engine) choose(s *choice, values [][]byte, page page) result {
	t := e.table(s.table)
	where := t.span(s.where, values)
	left := -1
	if s.limit != nil {
		left = int(int32(binary.BigEndian.Uint32(valueOf(*s.limit, datatype.Int, values)))) //nolint:gosec // as it was encoded
		if left <= 0 {
			refuse("LIMIT must be strictly positive")
		}
	}
	reverse := false
	for i, o := range s.order {
		if where.key == nil || t.column(o.column) != t.keys+i || i > 0 && (o.descending != t.descending[i]) != reverse {
			refuse("Unsupported order by relation")
		}
		reverse = o.descending != t.descending[i]
	}
	out := result{columns: t.selected(s)}
	now := time.Now()
	skip := 0
	if len(page.state) == 8 {
		skip = int(binary.BigEndian.Uint64(page.state)) //nolint:gosec // a state of this server
	}
	seen := 0
	visit := func(p *partition, r *row) bool {
		if !r.live(now) {
			return true
		}
		if seen == left {
			return false
		}
		if seen++; seen <= skip {
			return true
		}
		if page.size > 0 && len(out.rows) == page.size {
			out.paging = binary.BigEndian.AppendUint64(nil, uint64(seen-1)) //nolint:gosec // counts up
			return false
		}
		out.rows = append(out.rows, t.picked(s, p, r, now))
		return true
	}
	if where.key == nil {
		t.partitions.Scan(func(_ string, p *partition) bool {
			more := true
			p.rows.Scan(func(_ string, r *row) bool {
				more = visit(p, r)
				return more
			})
			return more
		})
		return out
	}
	p, ok := t.partitions.Get(partitionID(where.key))
	if !ok {
		return out
	}
	if reverse {
		p.rows.Descend(where.to, func(id string, r *row) bool {
			return id == where.to || id >= where.from && visit(p, r)
		})
		return out
	}
	p.rows.Ascend(where.from, func(id string, r *row) bool {
		return id < where.to && visit(p, r)
	})
	return out
}

func (t *table) picked(s *choice, p *partition, r *row, now time.Time) (values message.Row) {
	if s.columns == nil {
		for i := range t.columns {
			values = append(values, t.value(p, r, i, now))
		}
		return values
	}
	for _, c := range s.columns {
		if c == nowColumn {
			values = append(values, binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))) //nolint:gosec // positive
			continue
		}
		values = append(values, t.value(p, r, t.index(c), now))
	}
	return values
}

// target is a change with its values at hand.
type target struct {
	*change
	table  *table
	where  span
	id     string // of the row; only if the whole key is given
	values [][]byte
}

// change executes the statements of a batch, or one alone. If any has a
// condition, all are executed or none.
func (e *engine) change(changes []*change, values [][][]byte) result {
	var targets []target
	conditional := false
	for i, c := range changes {
		targets = append(targets, e.target(c, values[i]))
		conditional = conditional || c.conditional()
	}
	written := time.Now().UnixMicro()
	if !conditional {
		for _, t := range targets {
			t.apply(written, true)
		}
		return result{}
	}
	if keyspace := targets[0].table.name.keyspace; e.tablets == BareTablets && e.inTablets[keyspace] {
		refuse("%s: LWT is not yet supported with tablets", targets[0].table.name)
	}
	for _, t := range targets {
		if t.table != targets[0].table || !slices.EqualFunc(t.where.key, targets[0].where.key, bytes.Equal) {
			refuse("Batch with conditions cannot span multiple partitions")
		}
		if t.timestamp != nil {
			refuse("Cannot provide custom timestamp for conditional updates")
		}
	}
	now := time.Now()
	holds := true
	for _, t := range targets {
		holds = holds && t.holds(now)
	}
	out := e.verdict(targets, holds, len(changes) > 1, now)
	if holds {
		e.ballot = max(e.ballot+1, written)
		for _, t := range targets {
			t.apply(e.ballot, false)
		}
	}
	return out
}

func (e *engine) target(c *change, values [][]byte) target {
	t := target{change: c, table: e.table(c.table), values: values}
	where := c.where
	if c.verb == "INSERT" {
		where = nil
		for _, r := range c.set {
			if t.table.column(r.column) < t.table.keys+t.table.orders {
				where = append(where, r)
			}
		}
	}
	if len(where) == 0 {
		refuse("Some partition key parts are missing in %s", c.table)
	}
	t.where = t.table.span(where, values)
	if len(t.where.order) == t.table.orders {
		t.id = t.where.from
	} else if c.verb != "DELETE" || c.conditional() || c.remove != nil {
		refuse("Some clustering keys are missing in %s", c.table)
	}
	return t
}

// row answers the row of a change whose whole key is given, if it exists.
func (t target) row(now time.Time) (*partition, *row) {
	p, ok := t.table.partitions.Get(partitionID(t.where.key))
	if !ok {
		return nil, nil
	}
	r, ok := p.rows.Get(t.id)
	if !ok || !r.live(now) {
		return nil, nil
	}
	return p, r
}

func (t target) holds(now time.Time) bool {
	p, r := t.row(now)
	if t.ifNotExists {
		return r == nil
	}
	if t.ifExists && r == nil {
		return false
	}
	for _, c := range t.conditions {
		i := t.table.column(c.column)
		want := valueOf(c.value, t.table.columns[i].kind, t.values)
		var got []byte
		if r != nil {
			got = t.table.value(p, r, i, now)
		}
		if c.operator != "=" {
			refuse("this server knows = alone in conditions")
		}
		if (want == nil) != (got == nil) || !bytes.Equal(want, got) {
			return false
		}
	}
	return true
}

// verdict is the answer to a conditional change, in the shape of the flavour.
func (e *engine) verdict(targets []target, holds, batch bool, now time.Time) result {
	verdict := []byte{0}
	if holds {
		verdict = []byte{1}
	}
	t := targets[0].table
	out := result{columns: []*message.ColumnMetadata{{Keyspace: t.name.keyspace, Table: t.name.table, Name: "[applied]", Type: datatype.Boolean}}}
	if e.flavour == Scylla { // a row for each statement, with all columns, also when applied
		for i := range t.columns {
			out.columns = append(out.columns, t.metadata(i))
		}
		for _, target := range targets {
			p, r := target.row(now)
			values := message.Row{verdict}
			for i := range t.columns {
				var value []byte
				if r != nil {
					value = t.value(p, r, i, now)
				}
				values = append(values, value)
			}
			out.rows = append(out.rows, values)
		}
		return out
	}
	if holds {
		out.rows = message.RowSet{{verdict}}
		return out
	}
	for _, target := range targets {
		p, r := target.row(now)
		if r == nil || target.holds(now) {
			continue
		}
		var shown []int
		if target.ifNotExists || batch {
			for i := range t.keys + t.orders {
				shown = append(shown, i)
			}
		}
		if target.ifNotExists {
			for i := t.keys + t.orders; i < len(t.columns); i++ {
				shown = append(shown, i)
			}
		}
		for _, c := range target.conditions {
			if i := t.column(c.column); !slices.Contains(shown, i) {
				shown = append(shown, i)
			}
		}
		values := message.Row{verdict}
		for _, i := range shown {
			out.columns = append(out.columns, t.metadata(i))
			values = append(values, t.value(p, r, i, now))
		}
		out.rows = append(out.rows, values)
		return out
	}
	out.rows = message.RowSet{{verdict}} // no row is there that could be shown
	return out
}

// apply writes what a change says, at its own timestamp if it may have one.
func (t target) apply(written int64, own bool) {
	if own && t.timestamp != nil {
		written = int64(binary.BigEndian.Uint64(valueOf(*t.timestamp, datatype.Bigint, t.values))) //nolint:gosec // as it was encoded
	}
	p := t.table.partition(t.where.key)
	if t.verb == "DELETE" && t.remove == nil {
		p.remove(deletion{t.where.from, t.where.to, written})
		return
	}
	var expires time.Time
	if t.ttl != nil {
		seconds := binary.BigEndian.Uint32(valueOf(*t.ttl, datatype.Int, t.values))
		expires = time.Now().Add(time.Duration(seconds) * time.Second)
	}
	if t.verb == "INSERT" {
		p.put(t.id, t.where.order, -1, cell{[]byte{1}, written, expires})
	}
	for _, column := range t.remove {
		p.put(t.id, t.where.order, t.table.column(column), cell{nil, written, time.Time{}})
	}
	for _, r := range t.set {
		i := t.table.column(r.column)
		if i < t.table.keys+t.table.orders {
			if t.verb == "UPDATE" {
				refuse("PRIMARY KEY part %s found in SET part", r.column)
			}
			continue
		}
		p.put(t.id, t.where.order, i, cell{valueOf(r.value, t.table.columns[i].kind, t.values), written, expires})
	}
}

func encodeText(s string) []byte { return []byte(s) }

// encodeMap encodes a map of texts.
func encodeMap(m map[string]string) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(m))) //nolint:gosec // few
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		for _, s := range []string{k, m[k]} {
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(s))), s...) //nolint:gosec // short
		}
	}
	return out
}

// encodeSet encodes a set of texts.
func encodeSet(all ...string) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(all))) //nolint:gosec // few
	for _, s := range all {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(s))), s...) //nolint:gosec // short
	}
	return out
}
