package main

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// parseRef reads [NAMESPACE:]TYPE/ID. The first slash ends the type, so that an
// id may hold slashes and colons.
func (c *cli) parseRef(s string) (*nolav1.ActorRef, error) {
	head, id, ok := strings.Cut(s, "/")
	if !ok {
		return nil, usage("for example counter/alice", "%q is no actor: write it TYPE/ID, or NAMESPACE:TYPE/ID", s)
	}
	ref := nola.ActorRef{Namespace: c.namespace, Type: head, ID: id}
	if namespace, kind, ok := strings.Cut(head, ":"); ok {
		if c.namespaced && namespace != c.namespace {
			return nil, usage("name the namespace once", "%q lies in namespace %q, and -n says %q", s, namespace, c.namespace)
		}
		ref.Namespace, ref.Type = namespace, kind
	}
	if err := ref.Validate(); err != nil {
		return nil, usage("an actor is written TYPE/ID, or NAMESPACE:TYPE/ID", "%q is no actor: %s", s, err)
	}
	return &nolav1.ActorRef{Namespace: ref.Namespace, Type: ref.Type, Id: ref.ID}, nil
}

// nolaRef is the actor as package client wants it.
func nolaRef(r *nolav1.ActorRef) nola.ActorRef {
	return nola.ActorRef{Namespace: r.GetNamespace(), Type: r.GetType(), ID: r.GetId()}
}

// refName is the actor as one would type it here.
func refName(r *nolav1.ActorRef) string {
	return nolaRef(r).String()
}

// parseInvocationID reads the 32 hexadecimal digits that are shown, and the
// base64 that JSON shows.
func parseInvocationID(s string) ([]byte, error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == 16 {
		return b, nil
	}
	if b, err := base64.StdEncoding.DecodeString(s); err == nil && len(b) == 16 {
		return b, nil
	}
	return nil, usage("`nolactl cast` prints the id of what it sent", "%q is no invocation id: want 32 hexadecimal digits", s)
}

// word is the value of an enum as flags and tables say it: OUTCOME_FIRED is
// "fired".
func word(e protoreflect.Enum) string {
	d := e.Descriptor()
	v := d.Values().ByNumber(e.Number())
	if v == nil {
		return "unknown"
	}
	return wordOf(d, v)
}

func wordOf(d protoreflect.EnumDescriptor, v protoreflect.EnumValueDescriptor) string {
	s := strings.TrimPrefix(string(v.Name()), enumPrefix(d))
	return strings.ReplaceAll(strings.ToLower(s), "_", "-")
}

// words are all values of an enum but UNSPECIFIED.
func words(e protoreflect.Enum) []string { return wordsOf(e.Descriptor()) }

func wordsOf(d protoreflect.EnumDescriptor) []string {
	var all []string
	for i := range d.Values().Len() {
		if v := d.Values().Get(i); v.Number() != 0 {
			all = append(all, wordOf(d, v))
		}
	}
	return all
}

// enumPrefix is what all values of an enum begin with, by the rule of the
// schema: the zero value is PREFIX_UNSPECIFIED.
func enumPrefix(d protoreflect.EnumDescriptor) string {
	return strings.TrimSuffix(string(d.Values().ByNumber(0).Name()), "UNSPECIFIED")
}

// enumValue finds the value that s means: its full name, or its word with
// dashes or underscores in any case.
func enumValue(d protoreflect.EnumDescriptor, s string) (protoreflect.EnumValueDescriptor, bool) {
	name := strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(s), "-", "_"))
	for _, full := range []string{name, enumPrefix(d) + name} {
		if v := d.Values().ByName(protoreflect.Name(full)); v != nil {
			return v, true
		}
	}
	return nil, false
}

// enumArg reads the value of a flag as an enum; an empty value is the default.
func enumArg[E interface {
	protoreflect.Enum
	~int32
}](flag, s string) (E, error) {
	var zero E
	if s == "" {
		return zero, nil
	}
	v, ok := enumValue(zero.Descriptor(), s)
	if !ok {
		return zero, usage("", "--%s: %q is not known; want %s", flag, s, strings.Join(words(zero), ", "))
	}
	return E(v.Number()), nil
}

// labelsArg changes labels by key=value, and takes out those written "key-".
func labelsArg(labels map[string]string, changes []string) (map[string]string, error) {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, change := range changes {
		key, value, ok := strings.Cut(change, "=")
		if without, minus := strings.CutSuffix(change, "-"); !ok && minus && without != "" {
			delete(labels, without)
			continue
		}
		if !ok || key == "" {
			return nil, usage("", "--label: %q is no label; write key=value, or key- to take it out", change)
		}
		labels[key] = value
	}
	return labels, nil
}

// labelsText is the labels in a fixed order.
func labelsText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ", ")
}
