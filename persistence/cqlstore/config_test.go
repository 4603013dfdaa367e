package cqlstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nolaproject/nola/persistence/cqlstore"
)

func TestConfigFaults(t *testing.T) {
	good := cqlstore.Config{Hosts: []string{"db1", "127.0.0.1:9042", "[::1]:9042"}, Translate: map[string]string{"10.0.0.1:9042": "127.0.0.1:19042"}}
	if err := good.Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	bad := cqlstore.Config{
		Hosts: []string{"db1:0", "a/b"}, Translate: map[string]string{"10.0.0.1:9042": "db1:9042"}, Keyspace: "Nola", Password: "p", Mode: "fast", Shards: -1, Lease: time.Millisecond,
		ApplyAge: time.Hour, RingSize: 1, CacheBytes: 1, Timeout: time.Hour,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("a bad one is taken")
	}
	for _, part := range []string{"db1:0", "a/b", "Nola", "password", "fast", "shards -1", "lease", "apply age", "ring size 1", "cache bytes", "timeout 1h", "write IP:PORT twice"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	if err := (cqlstore.Config{}).Validate(); err == nil || !strings.Contains(err.Error(), "no hosts") {
		t.Errorf("without hosts: %v", err)
	}
}
