package nola

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// Limits of the parts of an actor's name, in bytes.
const (
	NameBytesMax    = 128 // a namespace or a type
	ActorIDBytesMax = 512
)

// DefaultNamespace is meant where a client names no namespace.
const DefaultNamespace = "default"

// ActorRef names one actor. Its Type is the name of the module, in the same
// namespace, whose code the actor runs. Two refs are the same actor exactly if
// they are ==.
type ActorRef struct {
	Namespace string
	Type      string
	ID        string
}

// String is the form people read and type: TYPE/ID, with the namespace in front
// and a colon where it is not the default one.
func (r ActorRef) String() string {
	if r.Namespace == DefaultNamespace || r.Namespace == "" {
		return r.Type + "/" + r.ID
	}
	return r.Namespace + ":" + r.Type + "/" + r.ID
}

// IsZero reports whether r names nothing.
func (r ActorRef) IsZero() bool { return r == ActorRef{} }

// Validate reports the first part of r that is not a legal name, as an
// INVALID_NAME error.
func (r ActorRef) Validate() error {
	if err := ValidateName("namespace", r.Namespace); err != nil {
		return err
	}
	if err := ValidateName("type", r.Type); err != nil {
		return err
	}
	return validateID(r.ID)
}

// ValidateName reports whether s may name a namespace, a type or a module:
// lower-case letters, digits, dots, dashes and underscores, starting and ending
// with a letter or digit, 1 to 128 bytes. The error names field.
func ValidateName(field, s string) error {
	switch {
	case s == "":
		return invalidName(field, s, "is empty")
	case len(s) > NameBytesMax:
		return invalidName(field, s, fmt.Sprintf("has %d bytes, at most %d are allowed", len(s), NameBytesMax))
	}
	for i := range len(s) {
		c := s[i]
		inner := c == '.' || c == '-' || c == '_'
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case inner && i > 0 && i < len(s)-1:
		case 'A' <= c && c <= 'Z':
			return invalidName(field, s, fmt.Sprintf("has the upper-case letter %q at byte %d; use %q", c, i, strings.ToLower(s)))
		case inner:
			return invalidName(field, s, "must start and end with a letter or digit")
		default:
			return invalidName(field, s, fmt.Sprintf("has %q at byte %d; only a-z, 0-9, '.', '-' and '_' are allowed", c, i))
		}
	}
	return nil
}

func validateID(id string) error {
	switch {
	case id == "":
		return invalidName("id", id, "is empty")
	case len(id) > ActorIDBytesMax:
		return invalidName("id", id, fmt.Sprintf("has %d bytes, at most %d are allowed", len(id), ActorIDBytesMax))
	case !utf8.ValidString(id):
		return invalidName("id", id, "is not UTF-8")
	}
	for i, c := range id {
		if c < 0x20 || c >= 0x7f && c < 0xa0 {
			return invalidName("id", id, fmt.Sprintf("has the control character %U at byte %d", c, i))
		}
	}
	return nil
}

func invalidName(field, s, what string) error {
	if len(s) > 64 {
		s = s[:61] + "..."
	}
	return &Error{
		Reason:   ReasonInvalidName,
		Message:  fmt.Sprintf("%s %q %s", field, s, what),
		Metadata: map[string]string{"field": field},
	}
}

// AppendCanonical appends the bytes that stand for r in stored keys: each part
// behind its length (one byte, one byte, two bytes big-endian), so that no two
// refs share bytes and none is a prefix of another. r must be valid.
func (r ActorRef) AppendCanonical(b []byte) []byte {
	b = append(b, byte(len(r.Namespace)))
	b = append(b, r.Namespace...)
	b = append(b, byte(len(r.Type)))
	b = append(b, r.Type...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.ID)))
	return append(b, r.ID...)
}

// ParseCanonical reads what AppendCanonical wrote at the start of b and returns
// the bytes behind it.
func ParseCanonical(b []byte) (r ActorRef, rest []byte, err error) {
	part := func(width int) string {
		if err != nil || len(b) < width {
			err = errCanonical
			return ""
		}
		n := int(b[0])
		if width == 2 {
			n = int(binary.BigEndian.Uint16(b))
		}
		if b = b[width:]; len(b) < n {
			err = errCanonical
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	r = ActorRef{Namespace: part(1), Type: part(1), ID: part(2)}
	if err != nil {
		return ActorRef{}, nil, err
	}
	return r, b, nil
}

var errCanonical = fmt.Errorf("nola: actor ref is cut short")

// ShardID numbers a shard, from 0.
type ShardID uint32

// ShardOf says which of n shards r lives in. A {tag} in the id (its first
// braces, if there is something between them) decides alone, together with the
// namespace, so that actors of any type with one tag share a shard.
//
// The hash is FNV-1a (64 bit) over the length-prefixed parts, finished with
// MurmurHash3's 64-bit mixer, scaled to n by the high word of a multiplication.
func ShardOf(r ActorRef, n int) ShardID {
	h := uint64(fnvOffset)
	add := func(s string) {
		h = (h ^ uint64(len(s)&0xff)) * fnvPrime
		h = (h ^ uint64(len(s)>>8)) * fnvPrime
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * fnvPrime
		}
	}
	add(r.Namespace)
	if tag, ok := tagOf(r.ID); ok {
		add(tag)
	} else {
		add(r.Type)
		add(r.ID)
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	hi, _ := bits.Mul64(h, uint64(n))
	return ShardID(hi)
}

const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)

func tagOf(id string) (string, bool) {
	open := strings.IndexByte(id, '{')
	if open < 0 {
		return "", false
	}
	n := strings.IndexByte(id[open+1:], '}')
	if n <= 0 {
		return "", false
	}
	return id[open+1 : open+1+n], true
}

// Epoch numbers the tenures of a shard, from 1. It is the fencing token of
// every write: a store refuses a batch whose epoch is not the newest.
type Epoch uint64

// Seq numbers the commits of a shard, from 1, without gaps.
type Seq uint64
