package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nolaproject/nola/client"
)

// fullDiskBytes is the size of the file system that is filled, and fullDiskLeft
// what the ballast leaves to a server at work.
const (
	fullDiskBytes = 96 << 20
	fullDiskLeft  = 256 << 10
)

// TestFullDisk fills the file system under a server at work. The process ends by
// itself and says which directory has no room and what to do. Once there is room
// again it starts, and has every effect that it acknowledged, once.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t)
	dir, ballast := filepath.Join(disk, "data"), filepath.Join(disk, "ballast")
	p := serve(t, dir)
	c := dial(t, p.url, client.Options{Retries: -1})
	push(t, c, "witness")
	invoke(t, c, "witness", "w0", "add", "before")
	fill(t, ballast)

	const workers = 8
	var acked [workers][]string
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d-%06d-%s", w, i, strings.Repeat("x", 800))
				if _, err := c.Invoke(ctx, actorRef("witness", fmt.Sprint("w", w)), "add", []byte(key)); err != nil {
					return
				}
				acked[w] = append(acked[w], key)
			}
		})
	}
	code := p.end(time.Minute)
	stop()
	wg.Wait()
	said := p.printed.warnings()
	if code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	for _, want := range []string{"the store in " + dir + " ", "space", "start again", "everything that was answered is on disk"} {
		if !strings.Contains(said, want) {
			t.Errorf("the message does not say %q", want)
		}
	}
	for _, bad := range []string{"goroutine ", "panic"} {
		if strings.Contains(said, bad) {
			t.Errorf("the message has %q in it", bad)
		}
	}
	if t.Failed() {
		t.FailNow()
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	p = serve(t, dir)
	c = p.dial()
	sum := 0
	for w := range workers {
		have := state(t, c, "witness", fmt.Sprint("w", w), "k/")
		for name, count := range have {
			if count != "1" {
				t.Errorf("witness/w%d: %.20s happened %s times", w, name, count)
			}
		}
		for _, key := range acked[w] {
			if have["k/"+key] == "" {
				t.Errorf("witness/w%d: %.20s was acknowledged and is lost", w, key)
			}
		}
		sum += len(acked[w])
	}
	if sum == 0 {
		t.Error("nothing was acknowledged while the disk filled: the test shows nothing")
	}
	if got := state(t, c, "witness", "w0", "k/before")["k/before"]; got != "1" {
		t.Errorf("what was acknowledged before the disk filled is %q, want 1", got)
	}
	p.terminate()
	if code, out, errOut := nolad(t, "doctor", "--data-dir", dir); code != 0 || !strings.Contains(out, "no faults") {
		t.Errorf("doctor after the disk was full: exit code %d\n%s%s", code, out, errOut)
	}
	t.Logf("%d calls acknowledged while the disk filled", sum)
}

// fill writes a file until the file system has no more than fullDiskLeft.
func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block, size := make([]byte, 64<<10), int64(0)
	for {
		n, err := f.Write(block)
		size += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if size > fullDiskBytes {
			t.Fatalf("%s takes more than the file system holds", path)
		}
	}
	if err := f.Truncate(size - fullDiskLeft); err != nil {
		t.Fatal(err)
	}
}
