package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// decodeFile reads a message from a YAML or JSON file, "-" being standard input.
func (c *cli) decodeFile(name string, into proto.Message) error {
	text, err := c.payloadOf(nil, name, fileBytesMax)
	if err != nil {
		return err
	}
	return c.decode(name, text, into)
}

// decode reads the JSON mapping of one message, in JSON or YAML.
func (c *cli) decode(name string, text []byte, into proto.Message) error {
	trees, err := documents(name, text)
	if err != nil {
		return err
	}
	if len(trees) > 1 {
		return usage("keep one of them", "%s holds %d documents, want one", name, len(trees))
	}
	return c.fill(name, trees[0], into)
}

// documents parses a file: JSON values one after another, or YAML documents. There
// is at least one.
func documents(name string, text []byte) (trees []any, err error) {
	next := yaml.NewDecoder(bytes.NewReader(text)).Decode
	if trimmed := bytes.TrimSpace(text); bytes.HasPrefix(trimmed, []byte("{")) && isJSON(trimmed) {
		d := json.NewDecoder(bytes.NewReader(trimmed))
		d.UseNumber() // 64-bit numbers keep their digits
		next = d.Decode
	}
	for {
		var tree any
		err := next(&tree)
		switch {
		case errors.Is(err, io.EOF) && len(trees) == 0:
			return nil, usage("", "%s is empty", name)
		case errors.Is(err, io.EOF):
			return trees, nil
		case err != nil:
			return nil, usage("", "%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
		case tree != nil: // a file may begin or end with ---
			trees = append(trees, tree)
		}
	}
}

// isJSON tells JSON values from YAML that begins with a brace.
func isJSON(text []byte) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var value json.RawMessage
		switch err := d.Decode(&value); {
		case errors.Is(err, io.EOF):
			return true
		case err != nil:
			return false
		}
	}
}

// fill puts the tree of the JSON mapping into a message, with what people write
// by hand: field names in snake case or camel case, enum values by their words,
// durations such as 1h30m, times without an offset, ranges of dates such as
// 2026-12-24..2026-12-31.
func (c *cli) fill(name string, tree any, into proto.Message) error {
	tree, err := c.canonical(into.ProtoReflect().Descriptor(), tree, "")
	if err != nil {
		return usage("", "%s: %s", name, err)
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		return usage("", "%s: %s", name, err)
	}
	if err := protojson.Unmarshal(raw, into); err != nil {
		_, what, _ := strings.Cut(err.Error(), "): ") // behind a position in the JSON that nobody wrote
		if what == "" {
			what = err.Error()
		}
		return usage("", "%s: %s", name, what)
	}
	return nil
}

// canonical rewrites a tree as the JSON mapping wants it. path names the place
// in errors.
func (c *cli) canonical(d protoreflect.MessageDescriptor, tree any, path string) (any, error) {
	fields, ok := tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%swant fields with values, got %T", at(path), tree)
	}
	for name, value := range fields {
		f := d.Fields().ByTextName(name)
		if f == nil {
			f = d.Fields().ByJSONName(name)
		}
		if f == nil {
			return nil, fmt.Errorf("%sthere is no field %q; known are %s", at(path), name, strings.Join(fieldNames(d), ", "))
		}
		where := strings.TrimPrefix(path+"."+name, ".")
		var err error
		switch items, isList := value.([]any); {
		case value == nil, f.IsMap():
		case f.IsList() && isList:
			for i := range items {
				if items[i], err = c.canonicalValue(f, items[i], fmt.Sprintf("%s[%d]", where, i)); err != nil {
					return nil, err
				}
			}
		case f.IsList():
			return nil, fmt.Errorf("%swant a list", at(where))
		default:
			if fields[name], err = c.canonicalValue(f, value, where); err != nil {
				return nil, err
			}
		}
	}
	return fields, nil
}

func (c *cli) canonicalValue(f protoreflect.FieldDescriptor, value any, path string) (any, error) {
	text, isText := value.(string)
	switch {
	case f.Enum() != nil && isText:
		v, ok := enumValue(f.Enum(), text)
		if !ok {
			return nil, fmt.Errorf("%s%q is not known; want %s", at(path), text, strings.Join(wordsOf(f.Enum()), ", "))
		}
		return string(v.Name()), nil
	case f.Message() == nil:
		if t, ok := value.(time.Time); ok && f.Kind() == protoreflect.StringKind { // YAML takes a date for a time
			return t.Format(time.DateOnly), nil
		}
		return value, nil
	}
	switch f.Message().FullName() {
	case "google.protobuf.Duration":
		if !isText {
			return nil, fmt.Errorf("%swant a duration with its unit, such as 90s, got %v", at(path), value)
		}
		d, err := parseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("%s%w", at(path), err)
		}
		seconds, rest := d/time.Second, (d % time.Second).Abs()
		sign := ""
		if d < 0 {
			sign, seconds = "-", -seconds
		}
		return fmt.Sprintf("%s%d.%09ds", sign, seconds, rest), nil
	case "nola.v1.DateRange":
		if t, ok := value.(time.Time); ok {
			return map[string]any{"from": t.Format(time.DateOnly)}, nil
		}
		if isText { // as --exclude takes it
			from, to, _ := strings.Cut(text, "..")
			return map[string]any{"from": from, "to": to}, nil
		}
	case "google.protobuf.Timestamp":
		if t, ok := value.(time.Time); ok { // YAML knows times
			return t.Format(time.RFC3339Nano), nil
		}
		t, err := c.parseTime(text, c.local)
		if err != nil {
			return nil, fmt.Errorf("%s%w", at(path), err)
		}
		return t.Format(time.RFC3339Nano), nil
	}
	return c.canonical(f.Message(), value, path)
}

func at(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func fieldNames(d protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range d.Fields().Len() {
		names = append(names, d.Fields().Get(i).JSONName())
	}
	sort.Strings(names)
	return names
}
