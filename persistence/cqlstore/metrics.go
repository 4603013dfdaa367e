package cqlstore

import (
	"fmt"
	"io"
)

// Metrics implements [persistence.Metricser].
func (s *Store) Metrics(w io.Writer) error {
	s.mu.Lock()
	ring, used := 0, int64(0)
	if s.own != nil {
		ring, used = s.own.ring, int64(s.own.w.Sent()-s.own.appliedTo)
	}
	s.mu.Unlock()
	f := &s.figures
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"nola_store_entries_total", "counter", "Entries appended to the lane.", f.entries.Load()},
		{"nola_store_closing_entries_total", "counter", "Entries that only say that all is applied.", f.closingEntries.Load()},
		{"nola_store_batches_total", "counter", "Batches in them.", f.batches.Load()},
		{"nola_store_batch_bytes_total", "counter", "Bytes of those batches.", f.bytes.Load()},
		{"nola_store_spilled_total", "counter", "Bodies written into chunks.", f.spilled.Load()},
		{"nola_store_flushes_total", "counter", "Shards brought into the tables.", f.flushes.Load()},
		{"nola_store_applied_rows_total", "counter", "Writes to the tables.", f.flushedRows.Load()},
		{"nola_store_apply_requests_total", "counter", "Requests that carried them.", f.applyRequests.Load()},
		{"nola_store_reads_memory_total", "counter", "Rows answered from memory.", f.memoryReads.Load()},
		{"nola_store_reads_table_total", "counter", "Reads of the tables.", f.tableReads.Load()},
		{"nola_store_lwts_total", "counter", "Conditional statements sent.", s.lanes.lwts.Load() + s.bulk.lwts.Load()},
		{"nola_store_claims_total", "counter", "Shards taken over.", f.claims.Load()},
		{"nola_store_releases_total", "counter", "Shards given away.", f.releases.Load()},
		{"nola_store_recoveries_total", "counter", "Lanes recovered.", f.recoveries.Load()},
		{"nola_store_unapplied_seconds", "gauge", "How long the oldest committed effect waits for the tables.", f.unapplied.Load()},
		{"nola_store_ring_slots", "gauge", "Slots of the lane's ring.", int64(ring)},
		{"nola_store_ring_used", "gauge", "Entries that are not in the tables.", used},
		{"nola_store_memory_bytes", "gauge", "Rows of owned shards in memory.", s.cached.Load()},
	} {
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value); err != nil {
			return err
		}
	}
	return nil
}
