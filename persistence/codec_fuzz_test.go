package persistence

import (
	"bytes"
	"testing"
	"time"

	"github.com/nolaproject/nola"
)

var fuzzRef = nola.ActorRef{Namespace: "n", Type: "t", ID: "i"}

// decoders are all that read stored bytes. Each answers a record, and what its
// encoder makes of it, key and value.
var decoders = []struct {
	name   string
	decode func(key, value []byte) (any, error)
	encode func(rec any) (key, value []byte)
}{
	{
		"meta", func(_, value []byte) (any, error) { return decodeMeta(value) },
		func(rec any) ([]byte, []byte) { return nil, encodeMeta(nil, rec.(Meta)) },
	},
	{
		"memory", func(_, value []byte) (any, error) {
			rec, err := decodeMemory(value)
			if err != nil {
				return nil, err
			}
			// What it says of its pages is checked once these are read.
			rec.Inline = rec.Inline || len(rec.Pages) == 0
			return &rec.Memory, nil
		},
		func(rec any) ([]byte, []byte) { return nil, encodeMemory(nil, rec.(*nola.Memory)) },
	},
	{
		"timer", func(key, value []byte) (any, error) { return decodeTimer(key, value) },
		func(rec any) ([]byte, []byte) {
			return []byte(rec.(TimerRecord).Name), encodeTimer(nil, rec.(TimerRecord))
		},
	},
	{
		"deferred", func(key, value []byte) (any, error) { return decodeDeferred(key, value) },
		func(rec any) ([]byte, []byte) {
			r := rec.(DeferredRecord)
			return r.Token[:], encodeDeferred(nil, &r)
		},
	},
	{
		"due", func(key, value []byte) (any, error) { return decodeDue(key, value) },
		func(rec any) ([]byte, []byte) {
			row := rec.(DueRow)
			return appendDueKey(nil, row.Due, row.Target, row.Kind, row.Name), encodeDue(nil, row)
		},
	},
	{"backlog", func(key, value []byte) (any, error) {
		row, err := decodeBacklog(key, value)
		ref, _, _ := parseBacklogKey(key)
		return backlogOf{ref, row}, err
	}, func(rec any) ([]byte, []byte) {
		r := rec.(backlogOf)
		return appendBacklogKey(nil, r.ref, r.row.Number), encodeBacklog(nil, r.row)
	}},
	{
		"outbox", func(key, value []byte) (any, error) { return decodeOutbox(key, value) },
		func(rec any) ([]byte, []byte) {
			row := rec.(OutboxRow)
			return appendOutboxKey(nil, row.To, row.Number), encodeOutbox(nil, row)
		},
	},
	{
		"inbox", func(_, value []byte) (any, error) { return decodeInbox(7, value) },
		func(rec any) ([]byte, []byte) { return nil, encodeInbox(nil, rec.(InboxRow)) },
	},
	{
		"user keys", func(_, value []byte) (any, error) { return decodeUserKeys(value) },
		func(rec any) ([]byte, []byte) { return nil, encodeUserKeys(nil, rec.(UserKeys)) },
	},
	{
		"floors", func(_, value []byte) (any, error) { return decodeFloors(value) },
		func(rec any) ([]byte, []byte) { return nil, encodeFloors(nil, rec.(Floors)) },
	},
	{
		"outcome", func(_, value []byte) (any, error) { return decodeOutcome(value) },
		func(rec any) ([]byte, []byte) {
			r := rec.(OutcomeRecord)
			value := encodeOutcome(nil, &r, r.ID.IsZero())
			return nil, value
		},
	},
	{
		"schedule", func(key, value []byte) (any, error) { return decodeSchedule(fuzzRef, key, value) },
		func(rec any) ([]byte, []byte) {
			s := rec.(nola.Schedule)
			return appendScheduleKey(nil, s.Reminder, s.ID), encodeSchedule(nil, &s)
		},
	},
	{"progress", func(_, value []byte) (any, error) {
		p, records, err := decodeProgress(value)
		return ScheduleRow{Progress: p, Records: records}, err
	}, func(rec any) ([]byte, []byte) {
		row := rec.(ScheduleRow)
		return nil, encodeProgress(nil, &row.Progress, row.Records)
	}},
	{"occurrence", func(_, value []byte) (any, error) {
		number, o, err := decodeOccurrence(value)
		return occurrenceOf{number, o}, err
	}, func(rec any) ([]byte, []byte) {
		r := rec.(occurrenceOf)
		return nil, encodeOccurrence(nil, r.number, r.o)
	}},
	{
		"cluster", func(_, value []byte) (any, error) { return decodeCluster(value) },
		func(rec any) ([]byte, []byte) { return nil, encodeCluster(nil, rec.(ClusterInfo)) },
	},
	{
		"namespace", func(key, value []byte) (any, error) { return decodeNamespace(string(key), value) },
		func(rec any) ([]byte, []byte) {
			return []byte(rec.(Namespace).Name), encodeNamespace(nil, rec.(Namespace))
		},
	},
	{
		"module", func(key, value []byte) (any, error) { return decodeModule(string(key), value) },
		func(rec any) ([]byte, []byte) {
			m := rec.(Module)
			return []byte(catalogKey(m.Namespace, m.Name)), encodeModule(nil, m)
		},
	},
	{
		"module version", func(key, value []byte) (any, error) { return decodeModuleVersion(string(key), value) },
		func(rec any) ([]byte, []byte) {
			v := rec.(ModuleVersion)
			return []byte(versionKey(v.Namespace, v.Name, v.Version)), encodeModuleVersion(nil, v)
		},
	},
	{
		"schedule entry", func(key, value []byte) (any, error) { return decodeScheduleEntry(string(key), value) },
		func(rec any) ([]byte, []byte) {
			e := rec.(ScheduleEntry)
			return []byte(catalogKey(e.Namespace, e.ID)), encodeScheduleEntry(nil, e)
		},
	},
	{
		"calendar", func(key, value []byte) (any, error) { return decodeCalendarEntry(string(key), value) },
		func(rec any) ([]byte, []byte) {
			e := rec.(CalendarEntry)
			return []byte(catalogKey(e.Namespace, e.Name)), encodeCalendarEntry(nil, e)
		},
	},
	{
		"placement", func(key, value []byte) (any, error) { return decodePlacement(string(key), value) },
		func(rec any) ([]byte, []byte) { return []byte(placementKey), encodePlacement(nil, rec.(Placement)) },
	},
	{"head", func(key, value []byte) (any, error) {
		shard, epoch, seq, err := decodeHead(key, value)
		return Head{shard, epoch, seq}, err
	}, func(rec any) ([]byte, []byte) {
		h := rec.(Head)
		return appendHeadKey(nil, h.Shard), encodeHead(nil, h.Epoch, h.Seq)
	}},
	{
		"listing", func(key, _ []byte) (any, error) { return parseListingKey(key) },
		func(rec any) ([]byte, []byte) { return appendListingKey(nil, rec.(nola.ActorRef)), nil },
	},
	{"catalogue", func(_, value []byte) (any, error) {
		data, version, err := decodeCatalogValue(value)
		return CatalogEntry{Value: data, Version: version}, err
	}, func(rec any) ([]byte, []byte) {
		e := rec.(CatalogEntry)
		return nil, encodeCatalogValue(nil, e.Version, e.Value)
	}},
}

type backlogOf struct {
	ref nola.ActorRef
	row BacklogRow
}

type occurrenceOf struct {
	number uint64
	o      nola.Occurrence
}

// FuzzDecode feeds every decoder with any bytes: it must refuse them or read
// what its encoder writes again.
func FuzzDecode(f *testing.F) {
	inv := &nola.Invocation{ID: nola.InvocationID{1}, Target: fuzzRef, Operation: "op", Payload: []byte("p"), Due: time.Unix(5, 6), Chain: []nola.ActorRef{fuzzRef}}
	key, value := appendDueKey(nil, time.Unix(1, 2), fuzzRef, DueTimer, "n"), encodeDue(nil, DueRow{Invocation: inv})
	f.Add(uint8(2), key, value)
	f.Add(uint8(3), appendBacklogKey(nil, fuzzRef, 3), encodeBacklog(nil, BacklogRow{Invocation: inv}))
	f.Add(uint8(4), appendOutboxKey(nil, 3, 4), encodeOutbox(nil, OutboxRow{Invocation: inv}))
	f.Add(uint8(5), []byte(nil), encodeInbox(nil, InboxRow{}))
	f.Add(uint8(8), []byte(nil), encodeOutcome(nil, &OutcomeRecord{ID: inv.ID, Err: &nola.Error{Metadata: map[string]string{"a": "b"}}}, false))
	f.Add(uint8(9), []byte("\x01id"), encodeSchedule(nil, &nola.Schedule{Spec: nola.Spec{Cron: []nola.Cron{{Expression: "* * * * *"}}}, Labels: map[string]string{"a": "b"}}))
	f.Add(uint8(10), []byte(nil), encodeProgress(nil, &nola.Progress{Running: []nola.Running{{Payload: []byte{}}}, Counters: map[nola.Outcome]nola.Counter{1: {}}}, 1))
	f.Add(uint8(15), []byte("n\x00m\x000000000a"), encodeModuleVersion(nil, ModuleVersion{}))
	f.Add(uint8(17), appendHeadKey(nil, 3), encodeHead(nil, 1, 2))
	for which := range decoders {
		f.Add(uint8(which), []byte("k"), []byte{formatOne})
		f.Add(uint8(which), []byte(nil), []byte{formatOne + 1})
	}
	f.Fuzz(func(t *testing.T, which uint8, key, value []byte) {
		d := decoders[int(which)%len(decoders)]
		rec, err := d.decode(key, value)
		if err != nil {
			return
		}
		againKey, againValue := d.encode(rec)
		again, err := d.decode(againKey, againValue)
		if err != nil {
			t.Fatalf("%s: key %x value %x\n read %+v\n but not again: %v", d.name, key, value, rec, err)
		}
		k, v := d.encode(again)
		if !bytes.Equal(k, againKey) || !bytes.Equal(v, againValue) {
			t.Errorf("%s: key %x value %x\n read      %+v\n and again %+v", d.name, key, value, rec, again)
		}
	})
}
