package nolav1_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func alice() *nolav1.ActorRef { return &nolav1.ActorRef{Type: "counter", Id: "alice"} }

func session(seq, ackedBelow uint64) *nolav1.SessionKey {
	return &nolav1.SessionKey{
		Id:           make([]byte, 16),
		Seq:          seq,
		AckedBelow:   ackedBelow,
		FirstAttempt: timestamppb.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
	}
}

// change returns a copy of m after f has changed it.
func change[M proto.Message](m M, f func(M)) M {
	c := proto.CloneOf(m)
	f(c)
	return c
}

// TestValidate holds good and bad requests against the rules of their messages.
// want is the id of a rule that must be among those broken, with the path of
// its field in front where it has one; empty means that the message is good.
func TestValidate(t *testing.T) {
	invoke := &nolav1.InvokeRequest{Actor: alice(), Operation: "inc"}
	call := &nolav1.InvokeManyCall{Tag: 7, Actor: alice(), Operation: "inc"}
	cast := &nolav1.CastRequest{Actor: alice(), Operation: "inc"}
	multi := &nolav1.MultiInvokeRequest{Actors: []*nolav1.ActorRef{alice(), {Type: "counter", Id: "bob"}}, Operation: "inc"}
	push := &nolav1.PushModuleRequest{Name: "counter", Wasm: []byte("\x00asm")}
	create := &nolav1.CreateScheduleRequest{Schedule: &nolav1.Schedule{
		ScheduleId: "nightly",
		Target:     &nolav1.ScheduleTarget{Actor: alice(), Operation: "inc"},
		Spec:       &nolav1.ScheduleSpec{Cron: []*nolav1.CronSpec{{Expression: "0 3 * * *", TimeZone: "Europe/Berlin"}}},
	}}
	every := func(every, phase time.Duration) *nolav1.PreviewScheduleRequest {
		return &nolav1.PreviewScheduleRequest{Spec: &nolav1.ScheduleSpec{Interval: []*nolav1.IntervalSpec{
			{Every: durationpb.New(every), Phase: durationpb.New(phase)},
		}}}
	}

	put := &nolav1.PutCalendarRequest{Calendar: &nolav1.Calendar{
		Name: "de-BE.2026", Dates: []*nolav1.DateRange{{From: "2026-12-24"}}, Rules: []*nolav1.HolidayRule{{Easter: nolav1.Easter_EASTER_WESTERN, Offset: -2}},
	}}
	rule := func(r *nolav1.HolidayRule) *nolav1.PutCalendarRequest {
		return change(put, func(m *nolav1.PutCalendarRequest) { m.Calendar.Rules[0] = r })
	}
	without := func(name string) *nolav1.PreviewScheduleRequest {
		return &nolav1.PreviewScheduleRequest{Spec: &nolav1.ScheduleSpec{
			Cron:    []*nolav1.CronSpec{{Expression: "@daily"}},
			Exclude: []*nolav1.ExcludeSpec{{Times: &nolav1.ExcludeSpec_HolidayCalendar{HolidayCalendar: name}}},
		}}
	}

	for name, tt := range map[string]struct {
		message proto.Message
		want    string
	}{
		"calendar":                {message: put},
		"calendar without a name": {change(put, func(m *nolav1.PutCalendarRequest) { m.Calendar.Name = "" }), "calendar.name string.min_len"},
		"name of a calendar with white space": {
			change(put, func(m *nolav1.PutCalendarRequest) { m.Calendar.Name = "my calendar" }), "calendar.name string.pattern",
		},
		"dates at the limit": {message: change(put, func(m *nolav1.PutCalendarRequest) {
			m.Calendar.Dates = slices.Repeat(m.Calendar.Dates, 10_000)
		})},
		"too many dates": {change(put, func(m *nolav1.PutCalendarRequest) {
			m.Calendar.Dates = slices.Repeat(m.Calendar.Dates, 10_001)
		}), "calendar.dates repeated.max_items"},
		"too many rules": {change(put, func(m *nolav1.PutCalendarRequest) {
			m.Calendar.Rules = slices.Repeat(m.Calendar.Rules, 201)
		}), "calendar.rules repeated.max_items"},
		"no date":                  {change(put, func(m *nolav1.PutCalendarRequest) { m.Calendar.Dates[0].From = "24.12." }), "calendar.dates[0].from string.pattern"},
		"rule with date fields":    {message: rule(&nolav1.HolidayRule{Month: "12", DayOfMonth: "25W"})},
		"empty rule":               {rule(&nolav1.HolidayRule{}), "calendar.rules[0] holiday_rule.kind"},
		"rule of both kinds":       {rule(&nolav1.HolidayRule{Month: "12", Easter: nolav1.Easter_EASTER_WESTERN}), "calendar.rules[0] holiday_rule.kind"},
		"offset without easter":    {rule(&nolav1.HolidayRule{Month: "12", Offset: 1}), "calendar.rules[0] holiday_rule.offset"},
		"offset of a year":         {rule(&nolav1.HolidayRule{Easter: nolav1.Easter_EASTER_WESTERN, Offset: 365}), "calendar.rules[0].offset int32.gte_lte"},
		"exclude of a calendar":    {message: without("bank")},
		"exclude of no calendar":   {without(""), "spec.exclude[0].holiday_calendar string.min_len"},
		"exclude of a broken name": {without("a/b"), "spec.exclude[0].holiday_calendar string.pattern"},
		"schedule of a calendar only": {message: change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Spec = &nolav1.ScheduleSpec{Calendar: []*nolav1.CalendarSpec{{Hour: "9"}}}
		})},
		"plain call":             {message: invoke},
		"call without an actor":  {&nolav1.InvokeRequest{Operation: "inc"}, "actor required"},
		"call without operation": {&nolav1.InvokeRequest{Actor: alice()}, "operation string.min_len"},
		"operation too long": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Operation = strings.Repeat("x", 129) }),
			"operation string.max_bytes",
		},
		"payload at the limit": {message: change(invoke, func(r *nolav1.InvokeRequest) { r.Payload = make([]byte, 4<<20) })},
		"payload too long": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Payload = make([]byte, 4<<20+1) }),
			"payload bytes.max_len",
		},
		"timeout of nothing": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Timeout = durationpb.New(0) }),
			"timeout duration.gt_lte",
		},
		"timeout at the limit": {message: change(invoke, func(r *nolav1.InvokeRequest) { r.Timeout = durationpb.New(5 * time.Minute) })},
		"timeout too long": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Timeout = durationpb.New(5*time.Minute + 1) }),
			"timeout duration.gt_lte",
		},

		"names":                        {message: &nolav1.ActorRef{Namespace: "team-a", Type: "shop.cart_2", Id: "{order-17}/cart"}},
		"name of one letter":           {message: &nolav1.ActorRef{Type: "a", Id: "1"}},
		"id in any script":             {message: &nolav1.ActorRef{Type: "a", Id: "günther 東京"}},
		"id of 512 bytes":              {message: &nolav1.ActorRef{Type: "a", Id: strings.Repeat("é", 256)}},
		"id of 513 bytes":              {&nolav1.ActorRef{Type: "a", Id: strings.Repeat("é", 256) + "x"}, "id string.max_bytes"},
		"id missing":                   {&nolav1.ActorRef{Type: "a"}, "id string.min_len"},
		"id with a control character":  {&nolav1.ActorRef{Type: "a", Id: "a\nb"}, "id string.pattern"},
		"id with a late control":       {&nolav1.ActorRef{Type: "a", Id: "a\u0085b"}, "id string.pattern"},
		"type missing":                 {&nolav1.ActorRef{Id: "a"}, "type string.min_len"},
		"type in upper case":           {&nolav1.ActorRef{Type: "Cart", Id: "a"}, "type string.pattern"},
		"type that ends in a dash":     {&nolav1.ActorRef{Type: "cart-", Id: "a"}, "type string.pattern"},
		"type that ends in a newline":  {&nolav1.ActorRef{Type: "cart\n", Id: "a"}, "type string.pattern"},
		"type of 129 bytes":            {&nolav1.ActorRef{Type: strings.Repeat("a", 129), Id: "a"}, "type string.max_len"},
		"namespace that starts dotted": {&nolav1.ActorRef{Namespace: ".a", Type: "a", Id: "a"}, "namespace string.pattern"},
		"fault inside a request": {
			&nolav1.GetStateRequest{Actor: &nolav1.ActorRef{Type: "a"}, Key: []byte("k")},
			"actor.id string.min_len",
		},

		"session": {message: change(invoke, func(r *nolav1.InvokeRequest) { r.Session = session(1023, 0) })},
		"session beyond its window": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Session = session(1024, 0) }), "session session_key.window",
		},
		"session call already acknowledged": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Session = session(4, 5) }), "session session_key.window",
		},
		"session id too short": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Session = session(0, 0); r.Session.Id = []byte("short") }),
			"session.id bytes.len",
		},
		"session without first attempt": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Session = session(0, 0); r.Session.FirstAttempt = nil }),
			"session.first_attempt required",
		},
		"two keys": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.Session = session(0, 0); r.IdempotencyKey = "k" }),
			"invoke_request.one_key",
		},
		"idempotency key too long": {
			change(invoke, func(r *nolav1.InvokeRequest) { r.IdempotencyKey = strings.Repeat("k", 257) }),
			"idempotency_key string.max_bytes",
		},

		"call of a stream":          {message: call},
		"bad call of a stream":      {change(call, func(c *nolav1.InvokeManyCall) { c.Actor = nil }), "actor required"},
		"stream message":            {message: &nolav1.InvokeManyRequest{Calls: []*nolav1.InvokeManyCall{call}}},
		"stream with one bad call":  {message: &nolav1.InvokeManyRequest{Calls: []*nolav1.InvokeManyCall{call, {Tag: 8}}}},
		"stream message of nothing": {&nolav1.InvokeManyRequest{}, "calls repeated.min_items"},
		"stream message too long": {
			&nolav1.InvokeManyRequest{Calls: slices.Repeat([]*nolav1.InvokeManyCall{call}, 1025)}, "calls repeated.max_items",
		},

		"cast": {message: cast},
		"cast for later": {message: change(cast, func(r *nolav1.CastRequest) {
			r.Delivery = &nolav1.CastRequest_Delay{Delay: durationpb.New(time.Hour)}
		})},
		"cast into the past by delay": {change(cast, func(r *nolav1.CastRequest) {
			r.Delivery = &nolav1.CastRequest_Delay{Delay: durationpb.New(-time.Hour)}
		}), "delay duration.gt_lte"},
		"cast beyond the calendar": {change(cast, func(r *nolav1.CastRequest) {
			r.Delivery = &nolav1.CastRequest_DeliverAt{DeliverAt: timestamppb.New(time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC))}
		}), "deliver_at timestamp.gte_lt"},

		"many targets": {message: multi},
		"no targets":   {change(multi, func(r *nolav1.MultiInvokeRequest) { r.Actors = nil }), "actors repeated.min_items"},
		"one target twice": {change(multi, func(r *nolav1.MultiInvokeRequest) {
			r.Actors = append(r.Actors, &nolav1.ActorRef{Namespace: "default", Type: "counter", Id: "bob"})
		}), "multi_invoke_request.distinct_actors"},
		"one bad target": {change(multi, func(r *nolav1.MultiInvokeRequest) {
			r.Actors = append(r.Actors, &nolav1.ActorRef{Id: "bob"})
		}), "actors[2].type string.min_len"},

		"invocation by id": {message: &nolav1.GetInvocationRequest{
			Actor: alice(), Selector: &nolav1.GetInvocationRequest_InvocationId{InvocationId: make([]byte, 16)},
		}},
		"invocation by session": {message: &nolav1.GetInvocationRequest{
			Actor: alice(), Selector: &nolav1.GetInvocationRequest_Session{Session: session(3, 2)},
		}},
		"invocation by nothing": {&nolav1.GetInvocationRequest{Actor: alice()}, "selector required"},
		"invocation by a short id": {&nolav1.GetInvocationRequest{
			Actor: alice(), Selector: &nolav1.GetInvocationRequest_InvocationId{InvocationId: make([]byte, 15)},
		}, "invocation_id bytes.len"},

		"all actors":         {message: &nolav1.ListActorsRequest{PageSize: 1000}},
		"page too large":     {&nolav1.ListActorsRequest{PageSize: 1001}, "page_size int32.gte_lte"},
		"page below nothing": {&nolav1.ListActorsRequest{PageSize: -1}, "page_size int32.gte_lte"},
		"empty state key":    {&nolav1.GetStateRequest{Actor: alice()}, "key bytes.min_len"},
		"state key too long": {&nolav1.GetStateRequest{Actor: alice(), Key: make([]byte, 1025)}, "key bytes.max_len"},

		"module":             {message: push},
		"module of no bytes": {change(push, func(r *nolav1.PushModuleRequest) { r.Wasm = nil }), "wasm bytes.min_len"},
		"manifest": {message: change(push, func(r *nolav1.PushModuleRequest) {
			r.Manifest = &nolav1.ModuleManifest{
				Mode:               nolav1.ModuleMode_MODULE_MODE_KV,
				ReadonlyOperations: []string{"get"},
				Env:                map[string]string{"GREETING": "hello"},
				Capabilities:       []string{"KV-GET", "KV-PUT"},
				Limits:             &nolav1.ModuleLimits{MemoryBytes: 16 << 20, TurnTimeout: durationpb.New(time.Second)},
			}
		})},
		"mode of a later version": {change(push, func(r *nolav1.PushModuleRequest) {
			r.Manifest = &nolav1.ModuleManifest{Mode: 3}
		}), "manifest.mode enum.defined_only"},
		"capability of no such form": {change(push, func(r *nolav1.PushModuleRequest) {
			r.Manifest = &nolav1.ModuleManifest{Capabilities: []string{"kv-get"}}
		}), "manifest.capabilities[0] string.pattern"},
		"memory without end": {change(push, func(r *nolav1.PushModuleRequest) {
			r.Manifest = &nolav1.ModuleManifest{Limits: &nolav1.ModuleLimits{MemoryBytes: 1<<30 + 1}}
		}), "manifest.limits.memory_bytes uint64.lte"},
		"version 0 as default": {&nolav1.SetDefaultVersionRequest{Name: "counter"}, "version uint64.gt"},

		"schedule": {message: create},
		"schedule without an id": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.ScheduleId = ""
		}), "schedule.schedule_id string.min_len"},
		"schedule without target": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Target = nil
		}), "create_schedule_request.target"},
		"schedule without entries": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Spec = &nolav1.ScheduleSpec{TimeZone: "UTC"}
		}), "create_schedule_request.spec"},
		"schedule with target in the same namespace": {message: change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Target.Actor.Namespace = "default"
		})},
		"schedule with target elsewhere": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Target.Actor.Namespace = "other"
		}), "schedule schedule.target_namespace"},
		"schedule with too many entries": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Spec.At = slices.Repeat([]*timestamppb.Timestamp{{Seconds: 1}}, 100)
		}), "schedule.spec schedule_spec.entries"},
		"schedule that ends before it starts": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Spec.StartTime = &timestamppb.Timestamp{Seconds: 2}
			r.Schedule.Spec.EndTime = &timestamppb.Timestamp{Seconds: 1}
		}), "schedule.spec schedule_spec.times"},
		"dialect of a later version": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Spec.Cron[0].Dialect = 8
		}), "schedule.spec.cron[0].dialect enum.defined_only"},
		"overlap policy": {message: change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Policy = &nolav1.SchedulePolicy{Overlap: nolav1.OverlapPolicy_OVERLAP_POLICY_ALLOW_ALL}
		})},
		"overlap policy of a later version": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Policy = &nolav1.SchedulePolicy{Overlap: 7}
		}), "schedule.policy.overlap enum.defined_only"},
		"catch-up window too short": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Policy = &nolav1.SchedulePolicy{Catchup: &nolav1.CatchupPolicy{Window: durationpb.New(time.Second)}}
		}), "schedule.policy.catchup.window duration.gte_lte"},
		"label name with a blank": {change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Labels = map[string]string{"a b": "c"}
		}), `schedule.labels["a b"] string.pattern`},
		"what was read is sent back": {message: change(create, func(r *nolav1.CreateScheduleRequest) {
			r.Schedule.Info = &nolav1.ScheduleInfo{Created: &timestamppb.Timestamp{Seconds: 1}}
		})},

		"interval":                  {message: every(time.Second, 999*time.Millisecond)},
		"interval too short":        {every(99*time.Millisecond, 0), "spec.interval[0].every duration.gte_lte"},
		"phase beyond the interval": {every(time.Second, time.Second), "spec.interval[0] interval_spec.phase"},
		"preview of nothing":        {&nolav1.PreviewScheduleRequest{}, "spec required"},
		"preview without end": {change(every(time.Second, 0), func(r *nolav1.PreviewScheduleRequest) {
			r.Count = 1001
		}), "count int32.gte_lte"},

		"update of a part": {message: &nolav1.UpdateScheduleRequest{
			Schedule:   &nolav1.Schedule{ScheduleId: "nightly", State: &nolav1.ScheduleState{Paused: true}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"state.paused", "labels"}},
		}},
		"update of the id": {&nolav1.UpdateScheduleRequest{
			Schedule:   &nolav1.Schedule{ScheduleId: "nightly"},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"schedule_id"}},
		}, "update_mask field_mask.in"},
		"pause until no time": {&nolav1.PauseScheduleRequest{
			ScheduleId: "nightly", Until: &timestamppb.Timestamp{Seconds: -1},
		}, "until timestamp.gte_lte"},
		"trigger": {message: &nolav1.TriggerScheduleRequest{ScheduleId: "nightly", RequestId: "r1", Payload: []byte{}}},

		"namespace":              {message: &nolav1.CreateNamespaceRequest{Namespace: "team-a"}},
		"namespace without name": {&nolav1.CreateNamespaceRequest{}, "namespace string.min_len"},
		"namespace state set by a user": {&nolav1.UpdateNamespaceRequest{
			Namespace: "team-a", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"state"}},
		}, "update_mask field_mask.in"},
		"cluster":                 {message: &nolav1.GetClusterRequest{}},
		"actor of no such name":   {&nolav1.LocateActorRequest{}, "actor required"},
		"shards, page after page": {message: &nolav1.ListShardsRequest{PageSize: 10, PageToken: "x"}},
		"usage of actors":         {message: &nolav1.GetUsageRequest{By: nolav1.UsageBy_USAGE_BY_ACTOR, Sort: nolav1.UsageSort_USAGE_SORT_TURNS, Limit: 10_000}},
		"too much usage":          {&nolav1.GetUsageRequest{Limit: 10_001}, "limit int32.gte_lte"},
		"usage by no such thing":  {&nolav1.GetUsageRequest{By: 9}, "by enum.defined_only"},
	} {
		t.Run(name, func(t *testing.T) {
			got := broken(t, tt.message)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("%s breaks %q, want a good message\n%s", tt.message.ProtoReflect().Descriptor().Name(), got, text(tt.message))
			case tt.want != "" && !slices.Contains(got, tt.want):
				t.Errorf("%s breaks %q, want %q among them\n%s", tt.message.ProtoReflect().Descriptor().Name(), got, tt.want, text(tt.message))
			}
		})
	}
}

// broken answers the rules that m breaks: path and id.
func broken(t *testing.T, m proto.Message) []string {
	t.Helper()
	err := protovalidate.Validate(m)
	var invalid *protovalidate.ValidationError
	if err != nil && !errors.As(err, &invalid) {
		t.Fatalf("validate: %v", err)
	}
	var rules []string
	if invalid != nil {
		for _, v := range invalid.Violations {
			path := protovalidate.FieldPathString(v.Proto.GetField())
			rules = append(rules, strings.TrimSpace(path+" "+v.Proto.GetRuleId()))
		}
	}
	return rules
}

func text(m proto.Message) string {
	s := protojson.Format(m)
	if len(s) > 2048 {
		s = s[:2048] + "..."
	}
	return s
}

// TestRulesCompile checks the rules of every message, also of those that no
// other test builds: a rule that does not compile would fail each request.
func TestRulesCompile(t *testing.T) {
	for _, file := range files {
		messages := file.Messages()
		for i := range messages.Len() {
			m := messages.Get(i)
			err := protovalidate.Validate(newMessage(t, m))
			var compile *protovalidate.CompilationError
			if errors.As(err, &compile) {
				t.Errorf("%s: %v", m.FullName(), err)
			}
		}
	}
}

// TestRequestsAreBounded checks that no field of a request takes text, bytes, a
// list or a map of any length, and no page or list size any number.
func TestRequestsAreBounded(t *testing.T) {
	for _, file := range files {
		services := file.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				checkBounded(t, methods.Get(j).Input(), nil)
			}
		}
	}
}

func checkBounded(t *testing.T, m protoreflect.MessageDescriptor, above []protoreflect.FullName) {
	t.Helper()
	if m.ParentFile().Package() != "nola.v1" || slices.Contains(above, m.FullName()) {
		return
	}
	above = append(above, m.FullName())
	fields := m.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		rules, err := protovalidate.ResolveFieldRules(f)
		if err != nil {
			t.Fatalf("%s: %v", f.FullName(), err)
		}
		if rules.GetIgnore() != 0 {
			continue // answered only, never read from a request
		}
		bounded := true
		switch {
		case f.IsMap():
			r := rules.GetMap()
			bounded = r.HasMaxPairs() && r.GetKeys().GetString().HasMaxBytes() && r.GetValues().GetString().HasMaxBytes()
		case f.IsList():
			r := rules.GetRepeated()
			bounded = r.HasMaxItems() && (f.Kind() != protoreflect.StringKind || r.GetItems().GetString().HasMaxBytes())
		case f.Kind() == protoreflect.StringKind:
			r := rules.GetString()
			bounded = r.HasMaxBytes() || r.HasMaxLen()
		case f.Kind() == protoreflect.BytesKind:
			r := rules.GetBytes()
			bounded = r.HasMaxLen() || r.HasLen()
		case f.Kind() == protoreflect.Int32Kind:
			r := rules.GetInt32()
			bounded = r.HasGte() && r.HasLte()
		case f.Kind() == protoreflect.EnumKind:
			bounded = rules.GetEnum().GetDefinedOnly()
		}
		if !bounded {
			t.Errorf("%s: a field of a request has no limit", f.FullName())
		}
		if f.Kind() == protoreflect.MessageKind && !f.IsMap() {
			checkBounded(t, f.Message(), above)
		}
	}
}

var files = []protoreflect.FileDescriptor{
	nolav1.File_nola_v1_actor_proto,
	nolav1.File_nola_v1_cluster_proto,
	nolav1.File_nola_v1_error_proto,
	nolav1.File_nola_v1_module_proto,
	nolav1.File_nola_v1_namespace_proto,
	nolav1.File_nola_v1_schedule_proto,
}

func newMessage(t *testing.T, m protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.FullName())
	if err != nil {
		t.Fatalf("%s: %v", m.FullName(), err)
	}
	return mt.New().Interface()
}

// BenchmarkValidate shows what the rules of a small call cost.
func BenchmarkValidate(b *testing.B) {
	for name, m := range map[string]proto.Message{
		"invoke":         &nolav1.InvokeRequest{Actor: alice(), Operation: "inc", Payload: make([]byte, 64)},
		"invoke/session": &nolav1.InvokeRequest{Actor: alice(), Operation: "inc", Payload: make([]byte, 64), Session: session(3, 1)},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := protovalidate.Validate(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
