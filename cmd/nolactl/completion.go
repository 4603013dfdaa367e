package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// Completion must not make a person wait, nor flood the screen.
const (
	completionWait = time.Second
	completionMax  = 100
)

func (c *cli) completionCommand() *cobra.Command {
	cmd := c.group("completion", "Print what makes a shell complete commands",
		`Print a script that makes a shell complete commands, flags, actors, schedules,
modules and namespaces. Load it in the start-up file of the shell.`,
		`nolactl completion bash > /dev/null
nolactl completion zsh > _nolactl`)
	add := func(shell, how string, write func(root *cobra.Command) error) {
		sub := leaf(shell, "Print the script for "+shell, how,
			"nolactl completion "+shell+"\nnolactl completion "+shell+" > nolactl."+shell,
			func(cmd *cobra.Command, _ []string) error { return write(cmd.Root()) })
		sub.ValidArgsFunction = cobra.NoFileCompletions
		cmd.AddCommand(sub)
	}
	add("bash", "Load it with: source <(nolactl completion bash)", func(r *cobra.Command) error { return r.GenBashCompletionV2(c.out, true) })
	add("zsh", "Put it as _nolactl into a directory of $fpath.", func(r *cobra.Command) error { return r.GenZshCompletion(c.out) })
	add("fish", "Load it with: nolactl completion fish | source", func(r *cobra.Command) error { return r.GenFishCompletion(c.out, true) })
	add("powershell", "Load it with: nolactl completion powershell | Out-String | Invoke-Expression", func(r *cobra.Command) error { return r.GenPowerShellCompletionWithDesc(c.out) })
	return cmd
}

// completing asks the server on behalf of a shell. Whatever goes wrong means no
// suggestions: there is nobody to tell.
func (c *cli) completing(cmd *cobra.Command, suggest func(ctx context.Context, r *client.Client) []string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if err := c.settle(cmd); err != nil {
		return nil, none
	}
	r, err := c.dial(nil)
	if err != nil {
		return nil, none
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	return suggest(ctx, r), none
}

// completeActor completes [NAMESPACE:]TYPE/ID as the first argument.
func (c *cli) completeActor(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeRef(cmd, args, typed)
}

// completeRef completes [NAMESPACE:]TYPE/ID, first the type and then the id.
func (c *cli) completeRef(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	head, prefix, hasID := strings.Cut(typed, "/")
	names, directive := c.completing(cmd, func(ctx context.Context, r *client.Client) []string {
		namespace, kind, lead := c.namespace, head, ""
		if ns, k, ok := strings.Cut(head, ":"); ok {
			namespace, kind, lead = ns, k, ns+":"
		}
		var names []string
		if hasID {
			req := &nolav1.ListActorsRequest{Namespace: namespace, Type: kind, IdPrefix: prefix, PageSize: completionMax}
			res, _ := ask(ctx, completionWait, r.Actors.ListActors, req)
			for _, a := range res.GetActors() {
				names = append(names, lead+a.Type+"/"+a.Id)
			}
			return names
		}
		res, _ := ask(ctx, completionWait, r.Modules.ListModules, &nolav1.ListModulesRequest{Namespace: namespace, PageSize: pageMax})
		for _, m := range res.GetModules() {
			names = append(names, lead+m.Name+"/")
		}
		return beginningWith(names, typed)
	})
	if !hasID {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return names, directive
}

// completeCall completes TYPE/ID OPERATION.
func (c *cli) completeCall(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return c.completeRef(cmd, args, typed)
	case 1:
		return c.completing(cmd, func(ctx context.Context, r *client.Client) []string {
			ref, err := c.parseRef(args[0])
			if err != nil {
				return nil
			}
			res, _ := ask(ctx, completionWait, r.Modules.GetModule, &nolav1.GetModuleRequest{Namespace: ref.Namespace, Name: ref.Type})
			return beginningWith(res.GetVersion().GetManifest().GetOperations(), typed)
		})
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func (c *cli) completeSchedules(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(cmd, func(ctx context.Context, r *client.Client) []string {
		req := &nolav1.ListSchedulesRequest{Namespace: c.namespace, Filter: "id=" + filterValue(typed) + "*", PageSize: completionMax}
		res, _ := ask(ctx, completionWait, r.Schedules.ListSchedules, req)
		var names []string
		for _, s := range res.GetSchedules() {
			names = append(names, s.ScheduleId)
		}
		return names
	})
}

func (c *cli) completeModules(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(cmd, func(ctx context.Context, r *client.Client) []string {
		res, _ := ask(ctx, completionWait, r.Modules.ListModules, &nolav1.ListModulesRequest{Namespace: c.namespace, PageSize: pageMax})
		var names []string
		for _, m := range res.GetModules() {
			names = append(names, m.Name)
		}
		return beginningWith(names, typed)
	})
}

func (c *cli) completeNamespaceArg(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeNamespaces(cmd, args, typed)
}

func (c *cli) completeNamespaces(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	// What is being typed must not be taken for the namespace to ask in.
	c.namespace = ""
	return c.completing(cmd, func(ctx context.Context, r *client.Client) []string {
		res, _ := ask(ctx, completionWait, r.Namespaces.ListNamespaces, &nolav1.ListNamespacesRequest{PageSize: pageMax})
		var names []string
		for _, n := range res.GetNamespaces() {
			names = append(names, n.Namespace)
		}
		return beginningWith(names, typed)
	})
}

func beginningWith(names []string, prefix string) []string {
	var kept []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix) && len(kept) < completionMax {
			kept = append(kept, n)
		}
	}
	return kept
}
