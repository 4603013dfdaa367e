package server

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// TestEveryPatternIsExplained: a value that a pattern of the schema refuses is
// answered with what is legal and an example, which the pattern takes.
func TestEveryPatternIsExplained(t *testing.T) {
	seen := make(map[string]bool)
	var walk func(protoreflect.MessageDescriptors)
	walk = func(all protoreflect.MessageDescriptors) {
		for i := range all.Len() {
			m := all.Get(i)
			for j := range m.Fields().Len() {
				rules, _ := proto.GetExtension(m.Fields().Get(j).Options(), validate.E_Field).(*validate.FieldRules)
				for _, r := range []*validate.FieldRules{rules, rules.GetRepeated().GetItems(), rules.GetMap().GetKeys(), rules.GetMap().GetValues()} {
					if p := r.GetString().GetPattern(); p != "" {
						seen[p] = true
					}
				}
			}
			walk(m.Messages())
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("nola.v1", func(f protoreflect.FileDescriptor) bool {
		walk(f.Messages())
		return true
	})
	if len(seen) < 5 {
		t.Fatalf("the schema has the patterns %v, want several", seen)
	}
	for p := range seen {
		f, ok := forms[p]
		if !ok {
			t.Errorf("the pattern %s is not explained", p)
		} else if !regexp.MustCompile(p).MatchString(f.example) {
			t.Errorf("the example %q is not taken by %s", f.example, p)
		}
	}
	valid, err := newValidator()
	if err != nil {
		t.Fatal(err)
	}
	err = asInvalid(valid.Validate(&nolav1.InvokeRequest{Actor: &nolav1.ActorRef{Type: "Coun ter", Id: "a\n"}, Operation: "inc"}))
	var e *nola.Error
	if !errors.As(err, &e) || strings.Contains(e.Message, "[a-z") || strings.Contains(e.Message, "Cc") {
		t.Fatalf("%v, want an error without a pattern", err)
	}
	for _, want := range []string{`actor.type: "Coun ter" is not legal`, `"order-items"`, `actor.id: "a\n" is not legal`, `"alice"`} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("the error %q does not say %s", e.Message, want)
		}
	}
}
