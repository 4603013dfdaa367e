package cqlfake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/datastax/go-cassandra-native-protocol/datatype"
)

// name is a table in its keyspace.
type name struct{ keyspace, table string }

func (n name) String() string { return n.keyspace + "." + n.table }

type column struct {
	name string
	kind datatype.DataType
}

// term is a value in a statement: the number of a bind marker, or a literal.
type term struct {
	bind    int // from 0; -1: a literal
	literal token
}

// relation compares a column with a term.
type relation struct {
	column   string
	operator string // = < > <= >=
	value    term
}

// The statements, as the parser answers them.
type (
	createKeyspace struct {
		keyspace    string
		ifNotExists bool
		replication map[string]string
		tablets     map[string]string // nil: it says nothing of them
	}
	createTable struct {
		table       name
		ifNotExists bool
		columns     []column
		partition   []string
		clustering  []string
		descending  map[string]bool
	}
	addColumns struct {
		table   name
		columns []column
	}
	drop struct {
		table    name // with an empty table: the keyspace
		ifExists bool
	}
	use    struct{ keyspace string }
	choice struct { // SELECT
		table   name
		columns []string // nil: all; now for toTimestamp(now())
		where   []relation
		order   []ordering
		limit   *term
	}
	ordering struct {
		column     string
		descending bool
	}
	change struct { // INSERT, UPDATE and DELETE
		table       name
		verb        string
		set         []relation // with =
		remove      []string   // the columns of a DELETE; nil: the rows
		where       []relation // of an INSERT too
		timestamp   *term
		ttl         *term
		ifNotExists bool
		ifExists    bool
		conditions  []relation
	}
)

func (c *change) conditional() bool { return c.ifNotExists || c.ifExists || len(c.conditions) > 0 }

// nowColumn stands for toTimestamp(now()) among the columns of a choice.
const nowColumn = "system.totimestamp(system.now())"

// parser reads one statement. What it does not expect ends it with a panic of a
// syntaxError, which parse recovers.
type parser struct {
	tokens []token
	binds  int
}

type syntaxError struct{ error }

// parse reads one statement of CQL and answers how many bind markers it has.
func parse(source string) (statement any, binds int, err error) {
	tokens, err := lex(source)
	if err != nil {
		return nil, 0, err
	}
	p := &parser{tokens: tokens}
	defer func() {
		if e, ok := recover().(syntaxError); ok {
			err = e
		}
	}()
	statement = p.statement()
	p.accept(";")
	if t := p.tokens[0]; t.kind != tokenEnd {
		p.fail("the end")
	}
	return statement, p.binds, nil
}

func (p *parser) fail(want string) {
	t := p.tokens[0]
	panic(syntaxError{fmt.Errorf("at %d: %q where %s is expected; this server knows a part of CQL only", t.at, t.text, want)})
}

func (p *parser) take() token {
	t := p.tokens[0]
	if t.kind != tokenEnd {
		p.tokens = p.tokens[1:]
	}
	return t
}

// accept takes the words, if they are what follows.
func (p *parser) accept(words ...string) bool {
	for i, w := range words {
		if i >= len(p.tokens) || p.tokens[i].text != w || p.tokens[i].kind != tokenWord && p.tokens[i].kind != tokenMark {
			return false
		}
	}
	p.tokens = p.tokens[len(words):]
	return true
}

func (p *parser) expect(words ...string) {
	if !p.accept(words...) {
		p.fail(strings.Join(words, " "))
	}
}

func (p *parser) word() string {
	if p.tokens[0].kind != tokenWord {
		p.fail("a name")
	}
	return p.take().text
}

func (p *parser) table() name {
	keyspace := p.word()
	p.expect(".")
	return name{keyspace, p.word()}
}

// list reads items with commas between them.
func (p *parser) list(item func()) {
	for item(); p.accept(","); {
		item()
	}
}

func (p *parser) names() (all []string) {
	p.expect("(")
	p.list(func() { all = append(all, p.word()) })
	p.expect(")")
	return all
}

func (p *parser) term() term {
	switch t := p.tokens[0]; {
	case p.accept("?"):
		p.binds++
		return term{bind: p.binds - 1}
	case t.kind == tokenNumber, t.kind == tokenText, t.kind == tokenBlob, t.text == "null", t.text == "true", t.text == "false":
		return term{bind: -1, literal: p.take()}
	}
	p.fail("a value")
	return term{}
}

func (p *parser) relations() (all []relation) {
	for {
		column := p.word()
		operator := p.take().text
		if !slices.Contains([]string{"=", "<", ">", "<=", ">="}, operator) {
			p.fail("a comparison before this")
		}
		all = append(all, relation{column, operator, p.term()})
		if !p.accept("and") {
			return all
		}
	}
}

func (p *parser) statement() any {
	switch {
	case p.accept("select"):
		return p.choice()
	case p.accept("insert", "into"):
		return p.insert()
	case p.accept("update"):
		return p.update()
	case p.accept("delete"):
		return p.delete()
	case p.accept("create", "keyspace"):
		return p.createKeyspace()
	case p.accept("create", "table"):
		return p.createTable()
	case p.accept("alter", "table"):
		s := addColumns{table: p.table()}
		p.expect("add")
		p.list(func() { s.columns = append(s.columns, column{p.word(), p.kind()}) })
		return s
	case p.accept("drop", "keyspace"):
		s := drop{ifExists: p.accept("if", "exists")}
		s.table.keyspace = p.word()
		return s
	case p.accept("drop", "table"):
		return drop{ifExists: p.accept("if", "exists"), table: p.table()}
	case p.accept("use"):
		return use{p.word()}
	}
	p.fail("a statement")
	return nil
}

func (p *parser) choice() *choice {
	s := &choice{}
	if !p.accept("*") {
		p.list(func() {
			if p.accept("totimestamp", "(", "now", "(", ")", ")") {
				s.columns = append(s.columns, nowColumn)
				return
			}
			s.columns = append(s.columns, p.word())
		})
	}
	p.expect("from")
	s.table = p.table()
	if p.accept("where") {
		s.where = p.relations()
	}
	if p.accept("order", "by") {
		p.list(func() {
			o := ordering{column: p.word(), descending: p.accept("desc")}
			if !o.descending {
				p.accept("asc")
			}
			s.order = append(s.order, o)
		})
	}
	if p.accept("limit") {
		limit := p.term()
		s.limit = &limit
	}
	return s
}

// using reads the part of a change that says its timestamp and its time to live.
func (p *parser) using(s *change) {
	if !p.accept("using") {
		return
	}
	for {
		var to **term
		switch {
		case p.accept("timestamp"):
			to = &s.timestamp
		case p.accept("ttl"):
			to = &s.ttl
		default:
			p.fail("TIMESTAMP or TTL")
		}
		value := p.term()
		*to = &value
		if !p.accept("and") {
			return
		}
	}
}

func (p *parser) insert() *change {
	s := &change{verb: "INSERT", table: p.table()}
	names := p.names()
	p.expect("values", "(")
	for i, n := range names {
		if i > 0 {
			p.expect(",")
		}
		s.set = append(s.set, relation{n, "=", p.term()})
	}
	p.expect(")")
	s.ifNotExists = p.accept("if", "not", "exists")
	p.using(s)
	return s
}

func (p *parser) update() *change {
	s := &change{verb: "UPDATE", table: p.table()}
	p.using(s)
	p.expect("set")
	p.list(func() {
		column := p.word()
		p.expect("=")
		s.set = append(s.set, relation{column, "=", p.term()})
	})
	p.expect("where")
	s.where = p.relations()
	p.condition(s)
	return s
}

func (p *parser) delete() *change {
	s := &change{verb: "DELETE"}
	if !p.accept("from") {
		p.list(func() { s.remove = append(s.remove, p.word()) })
		p.expect("from")
	}
	s.table = p.table()
	p.using(s)
	p.expect("where")
	s.where = p.relations()
	p.condition(s)
	return s
}

func (p *parser) condition(s *change) {
	switch {
	case p.accept("if", "exists"):
		s.ifExists = true
	case p.accept("if"):
		s.conditions = p.relations()
	}
}

func (p *parser) createKeyspace() createKeyspace {
	s := createKeyspace{ifNotExists: p.accept("if", "not", "exists"), keyspace: p.word()}
	p.expect("with")
	for {
		option := p.word()
		p.expect("=")
		value := p.option()
		switch option {
		case "replication":
			s.replication = value
		case "tablets":
			s.tablets = value
		}
		if !p.accept("and") {
			return s
		}
	}
}

// option reads the value of an option: a map, or a literal, which answers nil.
func (p *parser) option() map[string]string {
	if !p.accept("{") {
		p.term()
		return nil
	}
	m := map[string]string{}
	if p.accept("}") {
		return m
	}
	p.list(func() {
		key := p.take().text
		p.expect(":")
		m[key] = p.take().text
	})
	p.expect("}")
	return m
}

func (p *parser) createTable() *createTable {
	s := &createTable{ifNotExists: p.accept("if", "not", "exists"), table: p.table(), descending: map[string]bool{}}
	p.expect("(")
	p.list(func() {
		if p.accept("primary", "key", "(") {
			s.partition, s.clustering = p.primaryKey()
			return
		}
		c := column{p.word(), p.kind()}
		s.columns = append(s.columns, c)
		if p.accept("primary", "key") {
			s.partition = []string{c.name}
		}
	})
	p.expect(")")
	if p.accept("with") {
		for {
			if p.accept("clustering", "order", "by", "(") {
				p.list(func() {
					column := p.word()
					s.descending[column] = p.accept("desc")
					if !s.descending[column] {
						p.accept("asc")
					}
				})
				p.expect(")")
			} else {
				p.word()
				p.expect("=")
				p.option()
			}
			if !p.accept("and") {
				break
			}
		}
	}
	return s
}

func (p *parser) primaryKey() (partition, clustering []string) {
	if p.tokens[0].text == "(" {
		partition = p.names()
	} else {
		partition = []string{p.word()}
	}
	for p.accept(",") {
		clustering = append(clustering, p.word())
	}
	p.expect(")")
	return partition, clustering
}

var kinds = map[string]datatype.DataType{
	"bigint": datatype.Bigint, "blob": datatype.Blob, "boolean": datatype.Boolean, "double": datatype.Double,
	"inet": datatype.Inet,
	"int":  datatype.Int, "smallint": datatype.Smallint, "text": datatype.Varchar, "timestamp": datatype.Timestamp,
	"tinyint": datatype.Tinyint, "uuid": datatype.Uuid,
}

func (p *parser) kind() datatype.DataType {
	switch {
	case p.accept("frozen", "<"):
		k := p.kind()
		p.expect(">")
		return k
	case p.accept("set", "<"):
		k := datatype.NewSet(p.kind())
		p.expect(">")
		return k
	case p.accept("map", "<"):
		key := p.kind()
		p.expect(",")
		k := datatype.NewMap(key, p.kind())
		p.expect(">")
		return k
	}
	k, ok := kinds[p.tokens[0].text]
	if !ok {
		p.fail("a type")
	}
	p.take()
	return k
}
