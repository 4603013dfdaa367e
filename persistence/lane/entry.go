package lane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"

	"github.com/klauspost/compress/s2"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// Entry is one entry of a lane: a group of batches, or none, and where the lane
// stood when it was made. It does not change once it is made.
type Entry struct {
	Seq       Seq
	Prev      uint64    // Sum of the entry before it, 0 in the first
	TS        Timestamp // the lane's clock behind the last operation
	Applied   Seq       // the effects of entries up to here were in the tables
	Committed Seq       // entries up to here were committed
	Sum       uint64    // over the lane's id and all the rest
	Body      []byte
}

var sumTable = crc64.MakeTable(crc64.ECMA)

func (e *Entry) sum(lane ID) uint64 {
	var b [56]byte
	copy(b[:], lane[:])
	for i, v := range [...]uint64{uint64(e.Seq), e.Prev, uint64(e.TS), uint64(e.Applied), uint64(e.Committed)} {
		binary.BigEndian.PutUint64(b[16+8*i:], v)
	}
	return crc64.Update(crc64.Checksum(b[:], sumTable), sumTable, e.Body)
}

// Check reports whether the entry is whole, and belongs to the lane.
func (e *Entry) Check(lane ID) error {
	if sum := e.sum(lane); sum != e.Sum {
		return fmt.Errorf("lane: entry %d of lane %x has sum %016x, its content %016x: the store has damaged it, restore the table from its other replicas", e.Seq, lane, e.Sum, sum)
	}
	return nil
}

// bodyFormat is the format byte in front of every body. Behind it stand, all
// numbers as varints: the number of batches; of each its shard, epoch, number
// and count of operations; of each of these its kind, its table, an actor flag
// (0 none, 1 the canonical reference follows, 2 the one before), and key and
// value, each behind its length. The values are records of package persistence.
const bodyFormat = 1

// spillFormat is the format byte of a body that lies elsewhere. Behind it stand
// the id of its chunks, and as varints their number, the bytes of the body and
// its CRC-64.
const spillFormat = 2

// packedFormat is the format byte of a body that was compressed. Behind it stands
// the S2 block of one in bodyFormat.
const packedFormat = 3

// packBytesMin is the size up to which a body stays as it is.
const packBytesMin = 1 << 10

const (
	actorNone  = 0
	actorNamed = 1
	actorSame  = 2
)

// EncodeBody makes the body of an entry of batches, at most one of a shard. What
// is stored is the outcome of Pack.
func EncodeBody(batches []*persistence.Batch) []byte {
	size := 16
	for _, batch := range batches {
		size += batch.Bytes() + 32
	}
	b := append(make([]byte, 0, size), bodyFormat)
	b = binary.AppendUvarint(b, uint64(len(batches)))
	for _, batch := range batches {
		b = binary.AppendUvarint(b, uint64(batch.Shard))
		b = binary.AppendUvarint(b, uint64(batch.Epoch))
		b = binary.AppendUvarint(b, uint64(batch.Seq))
		b = binary.AppendUvarint(b, uint64(batch.Len()))
		var actor nola.ActorRef
		for _, op := range batch.Ops() {
			b = append(b, byte(op.Kind), byte(op.Table))
			switch {
			case op.Actor.IsZero():
				b = append(b, actorNone)
			case op.Actor == actor:
				b = append(b, actorSame)
			default:
				b = op.Actor.AppendCanonical(append(b, actorNamed))
				actor = op.Actor
			}
			b = append(binary.AppendUvarint(b, uint64(len(op.Key))), op.Key...)
			b = append(binary.AppendUvarint(b, uint64(len(op.Value))), op.Value...)
		}
	}
	return b
}

// Pack compresses a body of more than 1 KiB, if that makes it smaller, and answers
// others as they are.
func Pack(body []byte) []byte {
	if len(body) <= packBytesMin {
		return body
	}
	packed := make([]byte, 1+s2.MaxEncodedLen(len(body)))
	packed[0] = packedFormat
	packed = packed[:1+len(s2.Encode(packed[1:], body))]
	if len(packed) >= len(body) {
		return body
	}
	return packed
}

// unpack undoes Pack.
func unpack(body []byte) ([]byte, error) {
	if len(body) == 0 || body[0] != packedFormat {
		return body, nil
	}
	size, err := s2.DecodedLen(body[1:])
	if err == nil && size > SpillBytesMax {
		err = fmt.Errorf("it says that it has %d bytes, more than %d", size, SpillBytesMax)
	}
	if err == nil {
		body, err = s2.Decode(make([]byte, size), body[1:])
	}
	if err != nil {
		return nil, fmt.Errorf("lane: entry cannot be unpacked: %w", err)
	}
	return body, nil
}

// DecodeBody reads what EncodeBody made, packed or not. Keys and values are slices
// of body, or of what it was unpacked to. It answers a *persistence.FormatError for
// a body of a newer version.
func DecodeBody(body []byte) ([]*persistence.Batch, error) {
	body, err := unpack(body)
	if err != nil {
		return nil, err
	}
	if len(body) > 0 && body[0] != bodyFormat {
		return nil, &persistence.FormatError{Record: "lane entry", Found: body[0], Known: bodyFormat}
	}
	d := decoder{rest: body}
	d.byte()
	var batches []*persistence.Batch
	for range d.count() {
		batch := new(persistence.Batch)
		batch.Reset(nola.ShardID(d.uvarint()), nola.Epoch(d.uvarint()), nola.Seq(d.uvarint()))
		var actor nola.ActorRef
		for range d.count() {
			batch.Add(d.op(&actor))
			if d.err != nil {
				break
			}
		}
		if d.err != nil {
			break
		}
		batches = append(batches, batch)
	}
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes follow it", len(d.rest))
	}
	if d.err != nil {
		return nil, fmt.Errorf("lane: entry cannot be read: %w", d.err)
	}
	return batches, nil
}

// Spill says where the body of an entry lies that is too large for a slot: in
// chunks beside the ring. They are at a quorum before the entry is sent, so that
// whoever sees the entry can read its body.
type Spill struct {
	Chunks ID // made afresh for each body
	Parts  int
	Bytes  int
	Sum    uint64 // SumBody of the body
}

// SumBody is the CRC-64 of a body.
func SumBody(body []byte) uint64 { return crc64.Checksum(body, sumTable) }

func (s Spill) encode() []byte {
	b := append([]byte{spillFormat}, s.Chunks[:]...)
	b = binary.AppendUvarint(b, uint64(s.Parts))
	b = binary.AppendUvarint(b, uint64(s.Bytes))
	return binary.BigEndian.AppendUint64(b, s.Sum)
}

// Spill answers where the entry's body lies. spilled is false if it lies in the
// entry itself.
func (e *Entry) Spill() (s Spill, spilled bool, err error) {
	if len(e.Body) == 0 || e.Body[0] != spillFormat {
		return Spill{}, false, nil
	}
	d := decoder{rest: e.Body[1:]}
	id := d.take(len(s.Chunks))
	parts, size := d.uvarint(), d.uvarint()
	sum := d.take(8)
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes follow it", len(d.rest))
	}
	if d.err == nil && (parts < 1 || parts > size || size > SpillBytesMax) {
		d.fail("it says that %d bytes lie in %d chunks", size, parts)
	}
	if d.err != nil {
		return Spill{}, true, fmt.Errorf("lane: entry %d cannot be read: %w", e.Seq, d.err)
	}
	return Spill{Chunks: ID(id), Parts: int(parts), Bytes: int(size), Sum: binary.BigEndian.Uint64(sum)}, true, nil
}

// decoder reads a body from its front. After a fault it answers zeros.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail("it ends too early")
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("a number is not one")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// count reads how many things follow, each of which takes a byte at least.
func (d *decoder) count() int {
	v := d.uvarint()
	if v > uint64(len(d.rest)) {
		d.fail("it says that %d more follow and has %d bytes", v, len(d.rest))
		return 0
	}
	return int(v)
}

func (d *decoder) bytes() []byte { return d.take(d.count()) }

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.fail("it ends too early")
		return make([]byte, n)
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) op(actor *nola.ActorRef) persistence.Op {
	op := persistence.Op{Kind: persistence.OpKind(d.byte()), Table: persistence.Table(d.byte())}
	if d.err == nil && (op.Kind < persistence.OpPut || op.Kind > persistence.OpList) {
		d.fail("operation of kind %d is not known: run the version that wrote it, or a newer one", op.Kind)
	}
	switch flag := d.byte(); flag {
	case actorNone:
	case actorNamed:
		ref, rest, err := nola.ParseCanonical(d.rest)
		if err != nil {
			d.fail("actor: %w", err)
			break
		}
		*actor, d.rest = ref, rest
		op.Actor = ref
	case actorSame:
		op.Actor = *actor
	default:
		d.fail("actor flag is %d", flag)
	}
	op.Key, op.Value = d.bytes(), d.bytes()
	return op
}

// ticks is how many timestamps an entry takes: one for each operation and one
// for each batch, with which the shard's own number is written. An empty entry
// takes one too, so that its slot wins over the one before.
func ticks(batches []*persistence.Batch) Timestamp {
	n := 0
	for _, batch := range batches {
		n += 1 + batch.Len()
	}
	return Timestamp(max(1, n))
}

// Effects is what a batch of an entry does to the tables. The operation i is
// written with timestamp First + i; the shard's number, Batch.Seq, with the one
// behind the last operation.
type Effects struct {
	Batch *persistence.Batch
	First Timestamp
}

// Effects answers the entry's effects, in order. Anybody may write those of a
// committed entry, any number of times. An entry whose body was spilled answers
// an error; see EffectsOf.
func (e *Entry) Effects() ([]Effects, error) { return e.EffectsOf(e.Body) }

// EffectsOf answers the effects of an entry whose body was read from its chunks,
// or is its own.
func (e *Entry) EffectsOf(body []byte) ([]Effects, error) {
	switch spill, spilled, err := e.Spill(); {
	case err != nil:
		return nil, err
	case spilled && (len(body) != spill.Bytes || SumBody(body) != spill.Sum):
		return nil, fmt.Errorf("lane: the body of entry %d has %d bytes and the sum %016x, not %d and %016x: its chunks are damaged or were not read", e.Seq, len(body), SumBody(body), spill.Bytes, spill.Sum)
	}
	batches, err := DecodeBody(body)
	if err != nil {
		return nil, err
	}
	ts := e.TS - ticks(batches) + 1
	effects := make([]Effects, len(batches))
	for i, batch := range batches {
		effects[i] = Effects{Batch: batch, First: ts}
		ts += Timestamp(batch.Len()) + 1
	}
	return effects, nil
}

// The errors of Writer.Append.
var (
	ErrFull    = errors.New("lane: no room for another entry: wait until earlier ones are acknowledged and applied")
	ErrNotOpen = errors.New("lane: the lane is not open: recover it and commit through another one")
)
