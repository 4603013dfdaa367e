package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/persistence"
)

// What operators want of the nodes: which ones are drained, and which labels the
// rules of namespaces and types ask for. It stands in the catalogue. Every shard has
// actors of every type, so each rule holds for all shards.

// The limits of what operators want.
const (
	RulesMax        = 64
	DrainedMax      = 1024
	labelBytesMax   = 256
	placementEvery  = 5 * time.Second // how old a node's knowledge of it may be
	placementTries  = 8               // of a change, when others change it too
	preferScale     = 100
	preferPart      = 10 // a node has that part of its weight for each rule whose preference it lacks
	preferUnmetMax  = 2
	refreshPatience = 2 * time.Second // with nodes that are told of a change
)

// requires answers what keeps a node from serving shards, empty if nothing does.
func requires(rules []persistence.PlacementRule, labels map[string]string) string {
	for _, r := range rules {
		for _, name := range slices.Sorted(maps.Keys(r.Require)) {
			if labels[name] != r.Require[name] {
				return fmt.Sprintf("the rule of %s requires the label %s=%s", ruleName(r), name, r.Require[name])
			}
		}
	}
	return ""
}

// ruleName is whose a rule is, for people.
func ruleName(r persistence.PlacementRule) string {
	if r.Type == "" {
		return "namespace " + r.Namespace
	}
	return "type " + r.Namespace + "/" + r.Type
}

// avoids reports whether a rule would rather not have a node.
func avoids(rules []persistence.PlacementRule, labels map[string]string) bool {
	return slices.ContainsFunc(rules, func(r persistence.PlacementRule) bool {
		for name, value := range r.Avoid {
			if have, found := labels[name]; found && have == value {
				return true
			}
		}
		return false
	})
}

// share is a node's part of the shards, as the rules' preferences have it.
func share(rules []persistence.PlacementRule, n *NodeRow) Share {
	s := Share{n.Name, n.Weight * preferScale}
	unmet := 0
	for _, r := range rules {
		for name, value := range r.Prefer {
			if n.Labels[name] != value {
				unmet++
				break
			}
		}
	}
	for range min(unmet, preferUnmetMax) {
		s.Weight /= preferPart
	}
	return s
}

// shares are those of the nodes that may have shards, in the order of their names.
// They are fallen back upon if there is no other who is not drained: who has a shard
// keeps it then.
func (v View) shares() (list []Share, fallback bool) {
	pick := func(may func(n *NodeRow) bool) (list []Share) {
		for i := range v.Alive {
			if n := &v.Alive[i]; !n.Leaving && requires(v.Rules, n.Labels) == "" && may(n) {
				list = append(list, share(v.Rules, n))
			}
		}
		return list
	}
	if list = pick(func(n *NodeRow) bool { return n.Weight > 0 && !avoids(v.Rules, n.Labels) }); len(list) > 0 {
		return list, false
	}
	if list = pick(func(n *NodeRow) bool { return n.Weight > 0 }); len(list) > 0 {
		return list, false
	}
	list = pick(func(*NodeRow) bool { return true })
	for i := range list {
		list[i].Weight = 1
	}
	return list, true
}

// unserved says why no node may have shards, empty if one may.
func (v View) unserved() string {
	if shares, _ := v.shares(); len(shares) > 0 || len(v.Alive) == 0 {
		return ""
	}
	for _, n := range v.Alive {
		if why := requires(v.Rules, n.Labels); why != "" {
			return "no node may serve it: " + why
		}
	}
	return "all nodes are about to end"
}

// placement is what a node knows of the wishes of operators.
type placement struct {
	persistence.Placement
	version uint64
}

// refreshPlacement reads what operators want.
func (m *Member) refreshPlacement(ctx context.Context) error {
	rec, version, err := persistence.Catalog{Store: m.cfg.Store}.Placement(ctx)
	if err != nil {
		return fmt.Errorf("cluster: read the placement of shards: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	drained := slices.Contains(rec.Drained, m.cfg.Name)
	switch {
	case drained && !m.drained:
		m.cfg.Logger.Warn("the node is drained: it serves no shard until `nolactl node drain NODE --undo`", "node", m.cfg.Name)
	case !drained && m.drained:
		m.cfg.Logger.Info("the node is not drained any more")
	}
	m.placement, m.drained = placement{rec, version}, drained
	return nil
}

// runPlacement keeps the node's knowledge fresh until ctx ends.
func (m *Member) runPlacement(ctx context.Context) {
	tick := time.NewTicker(placementEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := m.refreshPlacement(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Logger.Warn("trying again", "error", err)
		}
	}
}

// changePlacement changes what operators want, and tells the nodes.
func (m *Member) changePlacement(ctx context.Context, change func(*persistence.Placement) error) error {
	c := persistence.Catalog{Store: m.cfg.Store}
	for try := 0; ; try++ {
		rec, version, err := c.Placement(ctx)
		if err == nil {
			if err = change(&rec); err == nil {
				_, err = c.PutPlacement(ctx, version, rec)
			}
		}
		if err == nil {
			break
		}
		if !errors.Is(err, persistence.ErrConflict) || try == placementTries {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, refreshPatience)
	defer cancel()
	m.askAll(ctx, "Refresh") // who does not hear it looks by itself
	return nil
}

// Drain has a node, named by its name or ID, give its shards away and take no
// others, or take part again. It holds until it is undone, also when the node restarts.
func (m *Member) Drain(ctx context.Context, node string, undo bool) (NodeStatus, error) {
	nodes := m.Status().Nodes
	n := NodeStatus{NodeRow: NodeRow{Name: node}}
	at := slices.IndexFunc(nodes, func(n NodeStatus) bool { return n.Name == node || n.ID == node })
	if at >= 0 {
		n = nodes[at]
	}
	err := m.changePlacement(ctx, func(p *persistence.Placement) error {
		i, found := slices.BinarySearch(p.Drained, n.Name)
		switch {
		case at < 0 && (!undo || !found):
			var names []string
			for _, n := range nodes {
				names = append(names, n.Name)
			}
			return nola.Errorf(nola.ReasonInvalidArgument, "there is no node %q; alive are %q", node, names)
		case undo && found:
			p.Drained = slices.Delete(p.Drained, i, i+1)
		case !undo && !found && len(p.Drained) >= DrainedMax:
			return nola.LimitError(nola.ReasonInvalidArgument, "drained_nodes", DrainedMax, "%d nodes are drained, the limit; `nolactl node drain NODE --undo` for those that are gone", len(p.Drained))
		case !undo && !found:
			p.Drained = slices.Insert(p.Drained, i, n.Name)
		}
		return nil
	})
	return n, err
}

// Rules answers the placement rules, in the order of their namespaces and types.
func (m *Member) Rules(ctx context.Context) ([]persistence.PlacementRule, error) {
	rec, _, err := persistence.Catalog{Store: m.cfg.Store}.Placement(ctx)
	return rec.Rules, err
}

func compareRules(a, b persistence.PlacementRule) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Type, b.Type))
}

// SetRule sets the rule of a namespace or type. It is refused if no node that lives
// has what this and the other rules require.
func (m *Member) SetRule(ctx context.Context, rule persistence.PlacementRule) error {
	if err := checkRule(rule); err != nil {
		return err
	}
	return m.changePlacement(ctx, func(p *persistence.Placement) error {
		at, found := slices.BinarySearchFunc(p.Rules, rule, compareRules)
		switch {
		case found:
			p.Rules[at] = rule
		case len(p.Rules) >= RulesMax:
			return nola.LimitError(nola.ReasonInvalidArgument, "placement_rules", RulesMax, "there are %d placement rules, the limit; `nolactl placement delete` one", len(p.Rules))
		default:
			p.Rules = slices.Insert(p.Rules, at, rule)
		}
		return m.satisfiable(p.Rules)
	})
}

// DeleteRule deletes the rule of a namespace or type.
func (m *Member) DeleteRule(ctx context.Context, namespace, typ string) error {
	return m.changePlacement(ctx, func(p *persistence.Placement) error {
		at, found := slices.BinarySearchFunc(p.Rules, persistence.PlacementRule{Namespace: namespace, Type: typ}, compareRules)
		if !found {
			return nola.Errorf(nola.ReasonInvalidArgument, "there is no placement rule of %s; `nolactl placement list` shows those there are", ruleName(persistence.PlacementRule{Namespace: namespace, Type: typ}))
		}
		p.Rules = slices.Delete(p.Rules, at, at+1)
		return nil
	})
}

// satisfiable refuses rules that no node that lives satisfies.
func (m *Member) satisfiable(rules []persistence.PlacementRule) error {
	var faults []string
	for _, n := range m.Status().Nodes {
		why := requires(rules, n.Labels)
		if why == "" {
			return nil
		}
		faults = append(faults, n.Name+": "+why)
	}
	return nola.Errorf(nola.ReasonInvalidArgument, "no node that lives could serve a shard, for each shard has actors of all types: %s; give nodes the label (cluster.labels) first, or ask for less", strings.Join(faults, "; "))
}

func checkRule(r persistence.PlacementRule) error {
	if err := nola.ValidateName("namespace", r.Namespace); err != nil {
		return err
	}
	if r.Type != "" {
		if err := nola.ValidateName("type", r.Type); err != nil {
			return err
		}
	}
	if len(r.Require)+len(r.Prefer)+len(r.Avoid) == 0 {
		return nola.Errorf(nola.ReasonInvalidArgument, "the rule of %s says nothing: give a label that it requires, prefers or avoids", ruleName(r))
	}
	for _, labels := range []map[string]string{r.Require, r.Prefer, r.Avoid} {
		if len(labels) > LabelsMax {
			return nola.LimitError(nola.ReasonInvalidArgument, "labels", LabelsMax, "the rule of %s has %d labels of one kind, at most %d are allowed", ruleName(r), len(labels), LabelsMax)
		}
		for name, value := range labels {
			if err := nola.ValidateName("label", name); err != nil {
				return err
			}
			if len(value) > labelBytesMax {
				return nola.LimitError(nola.ReasonInvalidArgument, "label_bytes", labelBytesMax, "the value of label %s has %d bytes, at most %d are allowed", name, len(value), labelBytesMax)
			}
		}
	}
	for name, value := range r.Avoid {
		if have, found := r.Require[name]; found && have == value {
			return nola.Errorf(nola.ReasonInvalidArgument, "the rule of %s requires and avoids the label %s=%s", ruleName(r), name, value)
		}
	}
	return nil
}
