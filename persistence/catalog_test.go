package persistence

import (
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

// TestEntriesOfOlderVersions reads what versions wrote that confirmed a
// schedule's id in its entry (field 4).
func TestEntriesOfOlderVersions(t *testing.T) {
	value, err := hex.DecodeString("01" + "0804" + "12090a016e120174" + "1a0161" + "1a0172" + "2002" + "2a020802")
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeScheduleEntry("n\x00nightly", value)
	want := ScheduleEntry{Namespace: "n", ID: "nightly", Incarnation: 4, Target: nola.ActorRef{Namespace: "n", Type: "t", ID: "a"}, RequestID: "r", Created: time.Unix(2, 0).UTC()}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, error %v, want %+v", got, err, want)
	}
}
