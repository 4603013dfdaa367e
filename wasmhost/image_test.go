package wasmhost

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

// generatorIn writes a generator as Go's runtime keeps it.
func generatorIn(memory []byte, seed byte) {
	key := [generatorSeedLen]byte{seed}
	g := rand.NewChaCha8(key)
	for n := range generatorBlock {
		binary.LittleEndian.PutUint64(memory[8*n:], g.Uint64())
	}
	copy(memory[generatorSeedAt:], key[:])
	binary.LittleEndian.PutUint32(memory[generatorNextAt+4:], generatorBlock)
}

// TestSearchForGeneratorsIsBounded has memories of what looks like generators: one
// within bounds hides none, and beyond them the memory is refused, for a generator
// that is not found would draw the same for all actors.
func TestSearchForGeneratorsIsBounded(t *testing.T) {
	const size = 1 << 20
	refused := func(memory []byte) bool {
		t.Helper()
		found, err := findGenerators(t.Context(), memory)
		if err != nil && !errors.Is(err, &nola.Error{Reason: nola.ReasonInvalidModule}) || err != nil && found != nil {
			t.Errorf("found %d, error %v", len(found), err)
		}
		return err != nil
	}
	lookAlike := binary.LittleEndian.AppendUint64(nil, 28<<32|12)

	few := make([]byte, size)
	copy(few[size/2:], bytes.Repeat(lookAlike, size/generatorProofBytes/2))
	last := size - generatorBytes&^7 - 8
	generatorIn(few[last:], 7)
	if found, err := findGenerators(t.Context(), few); err != nil || len(found) != 1 || found[0] != last {
		t.Errorf("found %v, %v, want %d", found, err, last)
	}
	full := bytes.Repeat(lookAlike, size/8)
	generatorIn(full[last:], 7)
	if !refused(full) {
		t.Error("a memory full of look-alikes is not refused")
	}
	const apart = (generatorBytes + 7) &^ 7
	crowd := make([]byte, (generatorsMax+1)*apart)
	for n := range generatorsMax + 1 {
		generatorIn(crowd[n*apart:], byte(n))
	}
	if !refused(crowd) || refused(crowd[apart:]) {
		t.Errorf("%d generators are allowed, and no more", generatorsMax)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if _, err := findGenerators(ctx, few); err != ctx.Err() {
		t.Errorf("after its time: %v", err)
	}
}
