package persistence

import (
	"context"

	storev1 "github.com/nolaproject/nola/proto/nola/store/v1"
)

// Placement is what operators want of the nodes of a cluster. There is one.
type Placement struct {
	// Drained are the names of the nodes that serve no shard, in order.
	Drained []string
	// Rules are in the order of their namespaces and types, one for each.
	Rules []PlacementRule
}

// PlacementRule says which nodes shall serve actors of a namespace, by the labels
// of the nodes.
type PlacementRule struct {
	Namespace string
	Type      string // empty: all of the namespace
	// Require are labels that a node must have, Prefer those that it should, and Avoid
	// those that it should not have.
	Require, Prefer, Avoid map[string]string
}

// placementKey is the one key of SpacePlacement.
const placementKey = "placement"

// Placement answers what operators want, zero at version 0 if nothing.
func (c Catalog) Placement(ctx context.Context) (Placement, uint64, error) {
	return catalogGet(ctx, c, SpacePlacement, placementKey, decodePlacement)
}

// PutPlacement changes what operators want.
func (c Catalog) PutPlacement(ctx context.Context, version uint64, rec Placement) (uint64, error) {
	return c.CatalogPut(ctx, SpacePlacement, placementKey, version, encodePlacement(nil, rec))
}

func encodePlacement(b []byte, rec Placement) []byte {
	m := &storev1.Placement{Drained: rec.Drained}
	for _, r := range rec.Rules {
		m.Rules = append(m.Rules, &storev1.PlacementRule{Namespace: r.Namespace, Type: r.Type, Require: r.Require, Prefer: r.Prefer, Avoid: r.Avoid})
	}
	return encodeMessage(b, m)
}

func decodePlacement(_ string, value []byte) (Placement, error) {
	var m storev1.Placement
	if err := decodeMessage("placement", value, &m); err != nil {
		return Placement{}, err
	}
	rec := Placement{Drained: m.GetDrained()}
	for _, r := range m.GetRules() {
		rec.Rules = append(rec.Rules, PlacementRule{Namespace: r.GetNamespace(), Type: r.GetType(), Require: r.GetRequire(), Prefer: r.GetPrefer(), Avoid: r.GetAvoid()})
	}
	return rec, nil
}
