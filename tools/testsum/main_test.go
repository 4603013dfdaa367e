package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFollow(t *testing.T) {
	for name, tt := range map[string]struct {
		in       string
		want     string
		says     []string
		saysNone string
	}{
		"passes and skips": {
			in: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"no engine\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Elapsed":1.25}`,
			want:     "1 passed, 0 failed, 1 skipped",
			says:     []string{"no engine", "pass  p  1.2s  1 passed, 0 failed, 1 skipped"},
			saysNone: "quiet",
		},
		"failure with its output": {
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			want: "0 passed, 1 failed, 0 skipped",
			says: []string{"got 1, want 2"},
		},
		"package that does not build": {
			in: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"undefined: x\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			want: "0 passed, 1 failed, 0 skipped",
			says: []string{"undefined: x"},
		},
		"panic in the middle": {
			in: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: here\n"}
{"Action":"fail","Package":"p"}`,
			want: "0 passed, 1 failed, 0 skipped",
			says: []string{"panic: here"},
		},
		"words of others": {
			in:   "go: downloading example.org/a v1.0.0\n{}",
			want: "0 passed, 0 failed, 0 skipped",
			says: []string{"go: downloading"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			kept := filepath.Join(t.TempDir(), "kept.json")
			sum, err := follow(strings.NewReader(tt.in), &out, kept)
			if err != nil {
				t.Fatal(err)
			}
			if got := sum.String(); got != tt.want {
				t.Errorf("summary %q, want %q", got, tt.want)
			}
			for _, want := range tt.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output does not say %q:\n%s", want, &out)
				}
			}
			if tt.saysNone != "" && strings.Contains(out.String(), tt.saysNone) {
				t.Errorf("output says %q:\n%s", tt.saysNone, &out)
			}
			if text, err := os.ReadFile(kept); err != nil || string(text) != tt.in {
				t.Errorf("kept %q, %v; want the input", text, err)
			}
			total, err := totalOf([]string{kept, kept})
			if err != nil {
				t.Fatal(err)
			}
			if want := (summary{2 * sum.passed, 2 * sum.failed, 2 * sum.skipped}); total != want {
				t.Errorf("total of the same twice %s, want %s", total, want)
			}
		})
	}
}
