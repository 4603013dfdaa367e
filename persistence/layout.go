package persistence

import (
	"bytes"
	"encoding/binary"

	"github.com/nolaproject/nola"
)

// The keys of a SortedMap, all numbers big-endian:
//
//	00                                         facts of the cluster
//	table  shard(4) [canonical ref] key        rows; the ref in tables of actors only
//	40     shard(4)                            head of a shard: format, epoch(8), seq(8)
//	41     namespace NUL type NUL id           an actor that appears in listings
//	42     space key                           catalogue: format, version(8), value
//	43                                         newest version in the catalogue: format, version(8)
//	44     SHA-256(32)                         object, bare bytes
//
// testdata/layout.golden holds an example of each.
const (
	sortedCluster        = 0x00
	sortedHeads          = 0x40
	sortedListing        = 0x41
	sortedCatalog        = 0x42
	sortedCatalogCounter = 0x43
	sortedObjects        = 0x44
)

const catalogPrefixBytes = 2 // in front of an entry's own key

var (
	clusterKey        = []byte{sortedCluster}
	catalogCounterKey = []byte{sortedCatalogCounter}
	listed            = []byte{formatOne} // the value of a listing row
)

// actorTables are the tables that go with their actor.
var actorTables = []Table{TableMeta, TableState, TableTimer, TableSchedule, TableProgress, TableOccurrence, TableDeferred, TableMemory}

func appendRowPrefix(b []byte, table Table, shard nola.ShardID, actor nola.ActorRef) []byte {
	b = append(b, byte(table))
	b = binary.BigEndian.AppendUint32(b, uint32(shard))
	if table.OfActor() {
		b = actor.AppendCanonical(b)
	}
	return b
}

// appendRangeEnd appends the first key behind r.
func appendRangeEnd(b []byte, r Range) []byte {
	at := len(b)
	b = appendRowPrefix(b, r.Table, r.Shard, r.Actor)
	if len(r.To) > 0 {
		return append(b, r.To...)
	}
	end := successor(nil, b[at:])
	return append(b[:at], end...)
}

func appendHeadKey(b []byte, shard nola.ShardID) []byte {
	return binary.BigEndian.AppendUint32(append(b, sortedHeads), uint32(shard))
}

func encodeHead(b []byte, epoch nola.Epoch, seq nola.Seq) []byte {
	b = binary.BigEndian.AppendUint64(append(b, formatOne), uint64(epoch))
	return binary.BigEndian.AppendUint64(b, uint64(seq))
}

func decodeHead(key, value []byte) (shard nola.ShardID, epoch nola.Epoch, seq nola.Seq, err error) {
	b, err := body("head", value)
	if err != nil {
		return 0, 0, 0, err
	}
	if len(key) != 5 || len(b) != 16 {
		return 0, 0, 0, damaged("head", errKey)
	}
	shard = nola.ShardID(binary.BigEndian.Uint32(key[1:]))
	return shard, nola.Epoch(binary.BigEndian.Uint64(b)), nola.Seq(binary.BigEndian.Uint64(b[8:])), nil
}

// appendListingPrefix appends what the keys of a namespace's actors, or those of
// one of its types, start with.
func appendListingPrefix(b []byte, namespace, typ string) []byte {
	b = append(b, sortedListing)
	b = append(append(b, namespace...), 0)
	if typ != "" {
		b = append(append(b, typ...), 0)
	}
	return b
}

func appendListingKey(b []byte, ref nola.ActorRef) []byte {
	b = append(b, sortedListing)
	b = append(append(b, ref.Namespace...), 0)
	b = append(append(b, ref.Type...), 0)
	return append(b, ref.ID...)
}

func parseListingKey(key []byte) (nola.ActorRef, error) {
	if len(key) == 0 {
		return nola.ActorRef{}, damaged("listing", errKey)
	}
	namespace, rest, ok := bytes.Cut(key[1:], []byte{0})
	typ, id, ok2 := bytes.Cut(rest, []byte{0})
	if !ok || !ok2 {
		return nola.ActorRef{}, damaged("listing", errKey)
	}
	return nola.ActorRef{Namespace: string(namespace), Type: string(typ), ID: string(id)}, nil
}

func catalogRow(space Space, key string) []byte {
	return append([]byte{sortedCatalog, byte(space)}, key...)
}

func encodeCatalogValue(b []byte, version uint64, value []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, formatOne), version)
	return append(b, value...)
}

// decodeCatalogValue answers a slice of value.
func decodeCatalogValue(value []byte) (data []byte, version uint64, err error) {
	b, err := body("catalogue", value)
	if err != nil {
		return nil, 0, err
	}
	if len(b) < 8 {
		return nil, 0, damaged("catalogue", errKey)
	}
	return b[8:], binary.BigEndian.Uint64(b), nil
}

func objectKey(digest [32]byte) []byte { return append([]byte{sortedObjects}, digest[:]...) }
