package shard_test

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkInvoke calls counters in the process, over the store in memory: what
// the shell itself costs.
func BenchmarkInvoke(b *testing.B) {
	for _, shards := range []int{1, 16, 256} {
		for _, actors := range []int{1, 1000} {
			b.Run(fmt.Sprintf("shards=%d/actors=%d", shards, actors), func(b *testing.B) {
				w := newWorld(b, shards)
				b.SetParallelism(32)
				b.ReportAllocs()
				var n atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := w.invoke(fmt.Sprint(n.Add(1)%int64(actors)), "inc", ""); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
