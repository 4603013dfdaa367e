package main

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// enumDefaults are the values that mean the same as none.
var enumDefaults = map[protoreflect.FullName]protoreflect.EnumNumber{
	"nola.v1.CronDialect":   protoreflect.EnumNumber(nolav1.CronDialect_CRON_DIALECT_AUTO),
	"nola.v1.DstGap":        protoreflect.EnumNumber(nolav1.DstGap_DST_GAP_SKIP),
	"nola.v1.DstOverlap":    protoreflect.EnumNumber(nolav1.DstOverlap_DST_OVERLAP_BOTH),
	"nola.v1.OverlapPolicy": protoreflect.EnumNumber(nolav1.OverlapPolicy_OVERLAP_POLICY_SKIP),
	"nola.v1.CatchupMode":   protoreflect.EnumNumber(nolav1.CatchupMode_CATCHUP_MODE_LAST),
}

// definition is what people have set of a schedule: a copy without namespace,
// etag and info, and without what is so by default anyway. Schedules that mean
// the same have equal definitions.
func definition(s *nolav1.Schedule) *nolav1.Schedule {
	d := proto.CloneOf(s)
	if actor := d.GetTarget().GetActor(); actor != nil {
		actor.Namespace = ""
	}
	d.Namespace, d.Etag, d.Info = "", "", nil
	if d.State != nil {
		d.State.PauseReason, d.State.PausedBy = "", ""
	}
	shorten(d.ProtoReflect())
	return d
}

// shorten takes out of m what means the same as nothing, and reports whether
// nothing is left.
func shorten(m protoreflect.Message) (empty bool) {
	empty = true
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
		case f.IsList() && f.Message() != nil && isOurs(f.Message()):
			for i := range v.List().Len() {
				shorten(v.List().Get(i).Message())
			}
		case f.IsList():
		case f.Enum() != nil:
			if byDefault, ok := enumDefaults[f.Enum().FullName()]; ok && v.Enum() == byDefault {
				m.Clear(f)
				return true
			}
		case f.Message() == nil:
		case f.Message().FullName() == "google.protobuf.Duration":
			if isZero(v.Message()) {
				m.Clear(f)
				return true
			}
		case isOurs(f.Message()):
			// an empty choice says something by being there
			if shorten(v.Message()) && f.ContainingOneof() == nil {
				m.Clear(f)
				return true
			}
		}
		empty = false
		return true
	})
	return empty
}

func isOurs(d protoreflect.MessageDescriptor) bool {
	return strings.HasPrefix(string(d.FullName()), "nola.v1.")
}

func isZero(m protoreflect.Message) bool {
	zero := true
	m.Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
		zero = false
		return false
	})
	return zero
}

// diffCellsMax bounds the work of a diff; texts beyond it are shown whole.
const diffCellsMax = 4_000_000

// lineDiff tells how one text becomes another: the lines that go behind "- ",
// those that come behind "+ ", and two lines around each change.
func lineDiff(before, after string) []string {
	const around = 2
	a, b := strings.Split(strings.TrimSuffix(before, "\n"), "\n"), strings.Split(strings.TrimSuffix(after, "\n"), "\n")
	all := align(a, b)
	var out []string
	hidden := false
	for i, line := range all {
		near := false
		for j := max(0, i-around); j < min(len(all), i+around+1) && !near; j++ {
			near = all[j][0] != ' '
		}
		if !near {
			hidden = true
			continue
		}
		if hidden && len(out) > 0 {
			out = append(out, "  …")
		}
		hidden = false
		out = append(out, line)
	}
	return out
}

// align writes the lines of both texts in order, each behind "  ", "- " or "+ ".
func align(a, b []string) (all []string) {
	if len(a)*len(b) > diffCellsMax {
		for _, line := range a {
			all = append(all, "- "+line)
		}
		for _, line := range b {
			all = append(all, "+ "+line)
		}
		return all
	}
	// common[i][j] is how many lines a[i:] and b[j:] have in common
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			all = append(all, "  "+a[i])
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			all = append(all, "- "+a[i])
			i++
		default:
			all = append(all, "+ "+b[j])
			j++
		}
	}
	return all
}
