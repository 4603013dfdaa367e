package main

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func example() result {
	return result{
		Format: resultFormat, Machine: machine{CPU: "Example CPU", Cores: 2, Kernel: "linux 6", Go: "go1"}, Commit: "abc", Slice: "1s", Rounds: 1,
		Blocks: []blockResult{
			{Name: "calls", Limits: []bounds{{echoMany: 40000}, {echoMany: 42000}}, Rows: []rowResult{
				{
					Name: "fast", Unit: perSecond, Value: spread{20500, 20000, 21000}, Latency: &latency{1.5, 12.25, 123.4, 1234}, Limit: echoMany, Share: &spread{0.5, 0.48, 0.52},
					Targets: []targetResult{{">= 0.35 x L1", 0.5, 0.35, pass}, {"p99 <= 10 ms", 12.25, 10, missed}, {"p50 <= L2 + L1", 1.5, 0.25, missed}},
				},
				{Name: "broken", Unit: millis, Errors: 2, Error: "answer 7 came after answer 8", Targets: []targetResult{{"<= 3 ms", 0, 3, pass}}},
			}},
			{Name: "server", Void: "L2 moved", Limits: []bounds{{}}, Rows: []rowResult{
				{Name: "ready", Unit: millis, Value: spread{30, 30, 30}, Note: "a note", Targets: []targetResult{{"<= 300 ms", 30, 300, pass}}},
				{Name: "untargeted", Unit: byteCount, Value: spread{0.5, 0.5, 0.5}},
			}},
		},
	}
}

// squeezed has single spaces, so that a test does not depend on widths.
func squeezed(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestTable(t *testing.T) {
	var out strings.Builder
	example().print(&out)
	got := squeezed(out.String())
	for _, want := range []string{
		"Example CPU, 2 cores, linux 6, go1, commit abc, 1s a slice, 1 rounds",
		"L1 echo, 64 callers 41,000/s 40,000..42,000/s",
		"fast 20,500/s 20,000..21,000/s 1.50 12.2 123 1,234 0.50 L1 (0.48..0.52) >= 0.35 x L1 0.500 pass",
		"\np99 <= 10 ms 12.2 short",
		"\np50 <= L2 + L1 1.50 of 0.250 short",
		"broken 0.000 ms 0.000..0.000 <= 3 ms 0.000 FAILED",
		"FAILED broken: 2 errors, one: answer 7 came after answer 8",
		"void: L2 moved",
		"<= 300 ms 30.0 void",
		"ready: a note",
		"untargeted 0.500 B 0.500..0.500 void",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
	// A column starts at the same place in every line of a block.
	var at int
	for line := range strings.Lines(out.String()) {
		if i := strings.Index(line, "target"); at == 0 && i > 0 {
			at = i
		}
		if i := strings.Index(line, ">= 0.35 x L1"); i > 0 && i != at {
			t.Errorf("the targets stand at column %d, their heading at %d:\n%s", i, at, out.String())
		}
	}
	if n := example().failures(); n != 1 {
		t.Errorf("%d failed rows, want 1", n)
	}
}

func TestFigure(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		u    unit
		want string
	}{
		{0.03, millis, "0.030 ms"},
		{1.234, millis, "1.23 ms"},
		{12.34, mebibytes, "12.3 MiB"},
		{123.4, byteCount, "123 B"},
		{1234, perSecond, "1,234/s"},
		{1234567, perSecond, "1,234,567/s"},
		{999.6, "", "1000"},
	} {
		if got := figure(tt.v, tt.u); got != tt.want {
			t.Errorf("figure(%v, %q) = %q, want %q", tt.v, tt.u, got, tt.want)
		}
	}
}

func TestResultFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	want := example()
	if err := want.write(file); err != nil {
		t.Fatal(err)
	}
	got, err := readResult(file)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v\nwrote %+v", got, err, want)
	}
	want.Format++
	if err := want.write(file); err != nil {
		t.Fatal(err)
	}
	if _, err := readResult(file); err == nil || !strings.Contains(err.Error(), "measure again") {
		t.Errorf("a file of another format: %v, want what to do", err)
	}
}

func TestCompare(t *testing.T) {
	older, newer := example(), example()
	newer.Machine.CPU = "Other CPU"
	newer.Blocks[0].Rows[0].Value = spread{30000, 29000, 31000}
	newer.Blocks[0].Rows[0].Share = &spread{0.6, 0.55, 0.61}
	older.Blocks[1].Rows[1].Name = "removed"
	newer.Blocks[1].Rows[1].Name = "added"
	var out strings.Builder
	compare(&out, older, newer)
	got := squeezed(out.String())
	for _, want := range []string{
		"the machines differ",
		"fast 20,500/s 30,000/s 1.46 0.50 L1 0.60 L1 12.2 12.2 better",
		"broken 0.000 ms 0.000 ms FAILED",
		"ready 30.0 ms 30.0 ms 1.00 void",
		"added 0.500 B new",
		"removed 0.500 B gone",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the comparison lacks %q:\n%s", want, got)
		}
	}
}

func TestJudge(t *testing.T) {
	rate := func(lo, hi float64) rowResult {
		return rowResult{Unit: perSecond, Value: spread{(lo + hi) / 2, lo, hi}}
	}
	late := func(lo, hi float64) rowResult {
		return rowResult{Unit: millis, Value: spread{(lo + hi) / 2, lo, hi}}
	}
	for name, tt := range map[string]struct {
		old, new rowResult
		want     string
	}{
		"more calls":     {rate(1, 2), rate(3, 4), "better"},
		"fewer calls":    {rate(3, 4), rate(1, 2), "worse"},
		"calls overlap":  {rate(1, 3), rate(2, 4), "same"},
		"longer":         {late(1, 2), late(3, 4), "worse"},
		"shorter":        {late(3, 4), late(1, 2), "better"},
		"delays overlap": {late(1, 3), late(2, 4), "same"},
	} {
		if got := judge(tt.old, tt.new, false); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestCPUModel(t *testing.T) {
	if got := cpuModel(strings.NewReader("processor\t: 0\nmodel name\t: Example CPU @ 2 GHz\nmodel name\t: Other\n"), "unknown"); got != "Example CPU @ 2 GHz" {
		t.Errorf("model %q", got)
	}
	if got := cpuModel(strings.NewReader("nothing\n"), "unknown"); got != "unknown" {
		t.Errorf("model %q", got)
	}
}
