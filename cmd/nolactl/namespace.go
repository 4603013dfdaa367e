package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) namespaceCommand() *cobra.Command {
	cmd := c.group("namespace", "Manage namespaces",
		`What lives in one namespace never meets what lives in another. The namespace
"default" exists from the start.`,
		`nolactl namespace create payments
nolactl namespace list`)
	cmd.AddCommand(
		c.namespaceCreateCommand(), c.namespaceListCommand(), c.namespaceGetCommand(),
		c.namespaceUpdateCommand(), c.namespaceSetCommand(), c.namespaceDeleteCommand(),
	)
	return cmd
}

func (c *cli) namespaceCreateCommand() *cobra.Command {
	var description string
	var labels []string
	cmd := leaf("create NAME", "Make a namespace", `Make a namespace.`,
		`nolactl namespace create payments
nolactl namespace create payments --description 'what moves money' --label team=core`,
		func(cmd *cobra.Command, args []string) error {
			set, err := labelsArg(nil, labels)
			if err != nil {
				return err
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.CreateNamespaceRequest{Namespace: args[0], Description: description, Labels: set}
			res, err := ask(cmd.Context(), c.timeout, r.Namespaces.CreateNamespace, req)
			if err != nil {
				return err
			}
			return c.say(res.Namespace, args[0], "namespace %s created", args[0])
		})
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label key=value; may be repeated")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func (c *cli) namespaceListCommand() *cobra.Command {
	var limit int
	cmd := leaf("list", "List all namespaces", `List all namespaces in the order of their names.`,
		`nolactl namespace list
nolactl namespace list -o name`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.Namespace]{
				what: "namespaces",
				head: []string{"NAME", "STATE", "CREATED", "DESCRIPTION"},
				row: func(n *nolav1.Namespace) []string {
					return []string{n.Namespace, word(n.State), c.when(n.Created), oneLine(n.Description)}
				},
				name: func(n *nolav1.Namespace) string { return n.Namespace },
				wrap: func(all []*nolav1.Namespace) proto.Message { return &nolav1.ListNamespacesResponse{Namespaces: all} },
				fetch: func(size int32, token string) ([]*nolav1.Namespace, string, error) {
					req := &nolav1.ListNamespacesRequest{PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Namespaces.ListNamespaces, req)
					return res.GetNamespaces(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	return cmd
}

func (c *cli) namespaceGetCommand() *cobra.Command {
	cmd := leaf("get NAME", "Show one namespace", `Show one namespace.`,
		`nolactl namespace get default
nolactl namespace get staging -o json`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Namespaces.GetNamespace, &nolav1.GetNamespaceRequest{Namespace: args[0]})
			if err != nil {
				return err
			}
			n := res.Namespace
			return c.show(n, n.GetNamespace(), func() error {
				d := c.details()
				d.fact("Namespace", n.GetNamespace())
				d.fact("State", word(n.GetState()))
				if n.GetDescription() != "" {
					d.fact("Description", oneLine(n.Description))
				}
				if len(n.GetLabels()) > 0 {
					d.fact("Labels", labelsText(n.Labels))
				}
				if n.GetLimits() != nil {
					d.fact("Limits", strings.Join(limitsText(n.Limits), ", "))
				}
				d.fact("Created", c.when(n.GetCreated()))
				d.fact("Updated", c.when(n.GetUpdated()))
				return d.flush()
			})
		})
	cmd.ValidArgsFunction = c.completeNamespaceArg
	return cmd
}

func (c *cli) namespaceUpdateCommand() *cobra.Command {
	var description string
	var labels []string
	cmd := leaf("update NAME", "Change a namespace", `Change what the flags name and leave the rest.`,
		`nolactl namespace update staging --description 'for trying out'
nolactl namespace update staging --label team=core --label owner-`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			req := &nolav1.UpdateNamespaceRequest{Namespace: args[0], UpdateMask: &fieldmaskpb.FieldMask{}}
			if cmd.Flags().Changed("description") {
				req.Description = description
				req.UpdateMask.Paths = append(req.UpdateMask.Paths, "description")
			}
			if cmd.Flags().Changed("label") {
				old, err := ask(cmd.Context(), c.timeout, r.Namespaces.GetNamespace, &nolav1.GetNamespaceRequest{Namespace: args[0]})
				if err != nil {
					return err
				}
				if req.Labels, err = labelsArg(old.Namespace.GetLabels(), labels); err != nil {
					return err
				}
				req.UpdateMask.Paths = append(req.UpdateMask.Paths, "labels")
			}
			if len(req.UpdateMask.Paths) == 0 {
				return usage("add --description or --label", "nothing to change was given")
			}
			res, err := ask(cmd.Context(), c.timeout, r.Namespaces.UpdateNamespace, req)
			if err != nil {
				return err
			}
			return c.say(res.Namespace, args[0], "namespace %s changed", args[0])
		})
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "label key=value, or key- to take it out; may be repeated")
	cmd.ValidArgsFunction = c.completeNamespaceArg
	return cmd
}

func (c *cli) namespaceSetCommand() *cobra.Command {
	var limits []string
	cmd := leaf("set NAME", "Set upper bounds for the modules of a namespace",
		`Set what the manifests of a namespace's modules may ask for at most, and leave the
rest. A module that asks for more is refused when it is pushed. One that is there
already, or asks for nothing, runs under the lower of the two from its next turn on.

Limits are memory_bytes, steps_per_turn, turn_timeout, host_calls, log_bytes, casts,
reply_bytes, table_elements, call_depth and memory_inline.`,
		`nolactl namespace set staging --limit memory_bytes=8388608 --limit turn_timeout=2s
nolactl namespace set staging --limit turn_timeout-`,
		func(cmd *cobra.Command, args []string) error {
			if len(limits) == 0 {
				return usage("add --limit", "nothing to set was given")
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			old, err := ask(cmd.Context(), c.timeout, r.Namespaces.GetNamespace, &nolav1.GetNamespaceRequest{Namespace: args[0]})
			if err != nil {
				return err
			}
			next, err := limitsArg(old.Namespace.GetLimits(), limits)
			if err != nil {
				return err
			}
			req := &nolav1.UpdateNamespaceRequest{Namespace: args[0], Limits: next, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"limits"}}}
			res, err := ask(cmd.Context(), c.timeout, r.Namespaces.UpdateNamespace, req)
			if err != nil {
				return err
			}
			return c.say(res.Namespace, args[0], "namespace %s changed", args[0])
		})
	cmd.Flags().StringArrayVar(&limits, "limit", nil, "NAME=VALUE, or NAME- to bound it no more; may be repeated")
	cmd.ValidArgsFunction = c.completeNamespaceArg
	return cmd
}

// limitsArg is old with what the arguments set or take out.
func limitsArg(old *nolav1.ModuleLimits, args []string) (*nolav1.ModuleLimits, error) {
	next := &nolav1.ModuleLimits{}
	if old != nil {
		proto.Merge(next, old)
	}
	fields := next.ProtoReflect().Descriptor().Fields()
	for _, arg := range args {
		name, value, set := strings.Cut(arg, "=")
		if !set {
			name = strings.TrimSuffix(arg, "-")
		}
		field := fields.ByName(protoreflect.Name(name))
		if field == nil || !set && name == arg {
			names := make([]string, fields.Len())
			for i := range names {
				names[i] = string(fields.Get(i).Name())
			}
			if field == nil {
				return nil, usage("limits are "+strings.Join(names, ", "), "--limit %q: there is no limit %q", arg, name)
			}
			return nil, usage("limits are "+strings.Join(names, ", "), "--limit %q: want NAME=VALUE or NAME-", arg)
		}
		next.ProtoReflect().Clear(field)
		if !set {
			continue
		}
		var one nolav1.ModuleLimits
		if err := protojson.Unmarshal([]byte(fmt.Sprintf("{%q: %q}", name, value)), &one); err != nil {
			return nil, usage("give a whole number; turn_timeout takes seconds, such as 2s or 0.5s", "--limit %q: %q is not a value of %s", arg, value, name)
		}
		proto.Merge(next, &one)
	}
	return next, nil
}

func (c *cli) namespaceDeleteCommand() *cobra.Command {
	cmd := leaf("delete NAME", "Remove a namespace and all it holds",
		`Close a namespace for all calls, and remove its actors, modules and schedules. The
removal goes on after the command has returned; the name is free when it is over.`,
		`nolactl namespace delete staging --yes
nolactl namespace delete staging -y -o name`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			if err := c.confirm("delete namespace %s with all its actors, modules and schedules", args[0]); err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Namespaces.DeleteNamespace, &nolav1.DeleteNamespaceRequest{Namespace: args[0]})
			if err != nil {
				return err
			}
			return c.say(res, args[0], "namespace %s is closed and being removed", args[0])
		})
	cmd.ValidArgsFunction = c.completeNamespaceArg
	return cmd
}
