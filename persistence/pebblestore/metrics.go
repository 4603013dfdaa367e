package pebblestore

import (
	"bufio"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// figures are what the store counts itself.
type figures struct {
	commits atomic.Int64
	nanos   atomic.Int64
	bytes   atomic.Int64
	stalls  atomic.Int64
}

func (f *figures) commit(took time.Duration, bytes int) {
	f.commits.Add(1)
	f.nanos.Add(int64(took))
	f.bytes.Add(int64(bytes))
}

// Metrics implements persistence.Metricser.
func (s *Store) Metrics(w io.Writer) error {
	m := s.m.db.Metrics()
	f := &s.m.figures
	total := m.Total()
	hits, misses := m.BlockCache.Hits, m.BlockCache.Misses
	b := bufio.NewWriter(w)
	put := func(name, kind, help string, value any) {
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", name, help, name, kind, name, value)
	}
	put("nola_store_writes_total", "counter", "Synced writes to the store's log.", f.commits.Load())
	put("nola_store_write_seconds_total", "counter", "Time spent in synced writes.", time.Duration(f.nanos.Load()).Seconds())
	put("nola_store_write_bytes_total", "counter", "Bytes given to synced writes.", f.bytes.Load())
	put("nola_store_write_stalls_total", "counter", "Times that writers were held back.", f.stalls.Load())
	put("nola_store_pressure", "gauge", "How far the store is behind, from 0 to 1.", s.Pressure())
	put("nola_store_disk_bytes", "gauge", "Disk space used.", m.DiskSpaceUsage())
	put("nola_store_log_bytes", "gauge", "Live bytes of the write-ahead log.", m.WAL.Size)
	put("nola_store_tables", "gauge", "Sorted tables on disk.", total.TablesCount)
	put("nola_store_level0_sublevels", "gauge", "Sublevels that wait to be compacted.", m.Levels[0].Sublevels)
	put("nola_store_memtable_bytes", "gauge", "Memory of tables not yet flushed.", m.MemTable.Size)
	put("nola_store_flushes_total", "counter", "Tables flushed.", m.Flush.Count)
	put("nola_store_compactions_total", "counter", "Compactions.", m.Compact.Count)
	put("nola_store_compaction_debt_bytes", "gauge", "Bytes estimated to be compacted until the tables are in order.", m.Compact.EstimatedDebt)
	put("nola_store_cache_bytes", "gauge", "Bytes in the block cache.", m.BlockCache.Size)
	put("nola_store_cache_hits_total", "counter", "Blocks found in the cache.", hits)
	put("nola_store_cache_misses_total", "counter", "Blocks read from disk.", misses)
	put("nola_store_filter_hits_total", "counter", "Reads of tables that a filter saved.", m.Filter.Hits)
	put("nola_store_filter_misses_total", "counter", "Reads of tables that a filter did not save.", m.Filter.Misses)
	return b.Flush()
}
