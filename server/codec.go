package server

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// jsonCodec speaks JSON as Connect's own codec does, but for one thing: it
// refuses fields that the schema does not have. They come from people, who would
// otherwise never learn that the policy they misspelt is not in force.
type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }

func (jsonCodec) Marshal(message any) ([]byte, error) { return jsonCodec{}.MarshalAppend(nil, message) }

func (jsonCodec) MarshalAppend(b []byte, message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no protobuf message", message)
	}
	return protojson.MarshalOptions{}.MarshalAppend(b, m)
}

func (jsonCodec) Unmarshal(text []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", message)
	}
	if len(text) == 0 {
		return errors.New("the body is empty, want a JSON object such as {}")
	}
	err := protojson.Unmarshal(text, m)
	if err != nil && strings.Contains(err.Error(), "unknown field") {
		d := m.ProtoReflect().Descriptor()
		names := make([]string, d.Fields().Len())
		for i := range names {
			names[i] = d.Fields().Get(i).JSONName()
		}
		return fmt.Errorf("%w; the fields of %s are: %s", err, d.Name(), strings.Join(names, ", "))
	}
	return err
}
