package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// format is how results are written.
type format string

// The formats.
const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatJSONL format = "jsonl"
	formatYAML  format = "yaml"
	formatName  format = "name"
)

var formats = []string{"table", "json", "jsonl", "yaml", "name"}

// String makes format a flag; the zero value is table.
func (f *format) String() string {
	if *f == "" {
		return string(formatTable)
	}
	return string(*f)
}

// Set takes one of the formats.
func (f *format) Set(s string) error {
	if !slices.Contains(formats, s) {
		return fmt.Errorf("want one of %s", strings.Join(formats, ", "))
	}
	*f = format(s)
	return nil
}

// Type names the kind of value in help.
func (f *format) Type() string { return "FORMAT" }

// limitDefault is how many items a list shows unless asked for more.
const limitDefault = 1_000

// pageMax is how many items are asked for at once.
const pageMax = 1_000

// listing is a list that comes in pages.
type listing[T proto.Message] struct {
	what  string // in the plural, for "no modules"
	head  []string
	row   func(T) []string
	name  func(T) string
	wrap  func([]T) proto.Message // all items as one message
	fetch func(size int32, token string) (items []T, next string, err error)
}

// print writes at most limit items, all of them if limit is 0.
func (l listing[T]) print(c *cli, limit int) error {
	if limit < 0 {
		return usage("", "--limit is %d, it must not be negative", limit)
	}
	var all []T
	seen, more, token := 0, true, ""
	for more && (limit == 0 || seen < limit) {
		size := pageMax
		if limit > 0 {
			size = min(size, limit-seen)
		}
		items, next, err := l.fetch(int32(size), token)
		if err != nil {
			return err
		}
		if limit > 0 && len(items) > limit-seen {
			items, next = items[:limit-seen], "more"
		}
		seen += len(items)
		token, more = next, next != ""
		if c.output == formatJSONL || c.output == formatName {
			if err := l.stream(c, items); err != nil {
				return err
			}
			continue
		}
		all = append(all, items...)
	}
	if more {
		c.note("showing the first %d %s; see all with --limit 0", limit, l.what)
	}
	switch c.output {
	case formatJSONL, formatName:
		return nil
	case formatJSON, formatYAML:
		return c.write(l.wrap(all), "")
	default:
	}
	if len(all) == 0 {
		c.note("no %s", l.what)
		return nil
	}
	t := c.table(l.head...)
	for _, item := range all {
		t.row(l.row(item)...)
	}
	return t.flush()
}

func (l listing[T]) stream(c *cli, items []T) error {
	for _, item := range items {
		if err := c.write(item, l.name(item)); err != nil {
			return err
		}
	}
	return nil
}

// show writes one message: in words where the format is a table.
func (c *cli) show(m proto.Message, name string, words func() error) error {
	if c.output == "" || c.output == formatTable {
		return words()
	}
	return c.write(m, name)
}

// write writes one message in a format that programs read.
func (c *cli) write(m proto.Message, name string) error {
	if c.output == formatName {
		_, err := fmt.Fprintln(c.out, clean(name))
		return err
	}
	text, err := encode(m, c.output)
	if err != nil {
		return err
	}
	_, err = c.out.Write(text)
	return err
}

// encode renders m in the JSON mapping of protobuf, or the same tree as YAML.
// The same message always gives the same bytes.
func encode(m proto.Message, f format) ([]byte, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	var b bytes.Buffer
	switch f {
	case formatJSONL:
		err = json.Compact(&b, raw)
	case formatYAML:
		return toYAML(raw)
	default:
		// Compact first: protojson puts spaces at random.
		var compact bytes.Buffer
		if err = json.Compact(&compact, raw); err == nil {
			err = json.Indent(&b, compact.Bytes(), "", "  ")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func toYAML(raw []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("write yaml: %w", err)
	}
	plain(&doc)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, fmt.Errorf("write yaml: %w", err)
	}
	return b.Bytes(), nil
}

// plain drops the braces and quotes that the tree has from JSON.
func plain(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode || len(n.Content) > 0 {
		n.Style = 0
	}
	for _, child := range n.Content {
		plain(child)
	}
}

// table writes aligned columns.
type table struct{ w *tabwriter.Writer }

func (c *cli) table(head ...string) table {
	t := table{tabwriter.NewWriter(c.out, 0, 0, 3, ' ', 0)}
	t.row(head...)
	return t
}

func (t table) row(cells ...string) {
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1] // padding at the end of a line serves nobody
	}
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, oneLine(cell))
	}
	fmt.Fprintln(t.w)
}

func (t table) flush() error { return t.w.Flush() }

// details writes facts about one thing, a label before each.
type details struct{ w *tabwriter.Writer }

func (c *cli) details() details { return details{tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)} }

// fact writes the values under one label, one a line, and nothing without any.
func (d details) fact(label string, values ...string) {
	if label != "" {
		label += ":"
	}
	for _, v := range values {
		fmt.Fprintf(d.w, "%s\t%s\n", label, clean(v))
		label = ""
	}
}

func (d details) flush() error { return d.w.Flush() }

// say writes a sentence about what was done, for people. Other formats get their
// message instead.
func (c *cli) say(m proto.Message, name, format string, args ...any) error {
	return c.show(m, name, func() error {
		_, err := fmt.Fprintln(c.out, clean(fmt.Sprintf(format, args...)))
		return err
	})
}

// note tells a person something beside the result.
func (c *cli) note(format string, args ...any) {
	fmt.Fprintln(c.errOut, clean(fmt.Sprintf(format, args...)))
}

// raw writes bytes as they are. On a terminal a line end is added, and bytes
// that would steer the terminal are shown instead.
func (c *cli) raw(b []byte) error {
	if c.outIsTerminal {
		if !isText(b) {
			c.note("note: it holds bytes that are no text, shown escaped here; redirect the output to get it as it is")
			b = []byte(escape(b))
		}
		if len(b) > 0 && b[len(b)-1] != '\n' {
			b = append(slices.Clip(b), '\n')
		}
	}
	_, err := c.out.Write(b)
	return err
}

// clean keeps text from steering a terminal or breaking a line of a table.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case unicode.IsControl(r), r == utf8.RuneError, unicode.Is(unicode.Cf, r):
			return '\uFFFD'
		default:
			return r
		}
	}, s)
}

// oneLine is clean for the cell of a table.
func oneLine(s string) string {
	return clean(strings.Join(strings.Fields(s), " "))
}

// isText tells whether b is UTF-8 without control characters but line ends and
// tabs.
func isText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
	}
	return true
}

func escape(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\n', r == '\t', r != utf8.RuneError && !unicode.IsControl(r):
			s.WriteRune(r)
		default:
			for _, octet := range b[:n] {
				fmt.Fprintf(&s, `\x%02x`, octet)
			}
		}
		b = b[n:]
	}
	return s.String()
}

// valueWidthMax is how many characters of a value a table shows.
const valueWidthMax = 60

// brief is a value as a table shows it: text as text, other bytes in
// hexadecimal, both cut where they are long.
func brief(b []byte) string {
	s := string(b)
	if !isText(b) {
		s = "0x" + hex.EncodeToString(b[:min(len(b), valueWidthMax)])
	}
	s = oneLine(s)
	if utf8.RuneCountInString(s) > valueWidthMax {
		s = string([]rune(s)[:valueWidthMax-1]) + "…"
	}
	return s
}

// readAll reads at most limit bytes, and refuses more.
func readAll(r io.Reader, limit int64, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, usage("", "cannot read %s: %s", name, err)
	}
	if int64(len(b)) > limit {
		return nil, usage("", "%s is longer than the %s that are allowed", name, bytesOf(limit))
	}
	return b, nil
}

// bytesOf is a size in words.
func bytesOf[N int | int64 | uint64](n N) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n == 1:
		return "1 byte"
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}
