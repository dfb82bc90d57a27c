package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/uplink"
)

// connectTimeout bounds the joining of the host with its uplinks, once VPP
// answers.
const connectTimeout = 10 * time.Second

// listUplinks splits names that stand in one text, as in eth0,eth1. What has an =
// may have commas of its own: the arguments of a virtual device.
func listUplinks(texts []string) []string {
	var out []string
	for _, text := range texts {
		if strings.Contains(text, "=") {
			out = append(out, text)
			continue
		}
		for name := range strings.SplitSeq(text, ",") {
			if name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

// splitUplinks tells the uplinks that the host shares with VPP, by their names,
// from those that VPP has for itself.
func splitUplinks(all []string) (shared []string, dedicated []uplink.Spec, err error) {
	for _, text := range all {
		if !strings.Contains(text, "=") {
			shared = append(shared, text)
			continue
		}
		s, err := uplink.ParseSpec(text)
		if err != nil {
			return nil, nil, fmt.Errorf("--uplink: %w", err)
		}
		dedicated = append(dedicated, s)
	}
	return shared, dedicated, nil
}

// dedicate gives a supervisor's VPP its own uplinks: they are taken before each
// start, joined with the host once VPP answers, and the host's again when VPP
// does not come back, or ends for good. What an earlier manager left is restored,
// also when none is wanted.
func dedicate(s *supervise.Supervisor, u *uplink.Uplinks) {
	next, after, disown := s.Next, s.After, s.Disown
	s.Next = func() (string, startup.Config, error) {
		path, conf, err := next()
		if err != nil {
			return "", startup.Config{}, err
		}
		if err := u.Take(); err != nil {
			return "", startup.Config{}, err
		}
		conf.DPDK = u.Section(conf.ShmPrefix(), max(conf.Workers, 1))
		return path, conf, nil
	}
	s.Uplinks = u.Held
	// A VPP through which the host is not on the network is worse than none: it
	// is started again, and when that does not help the host gets its NIC back.
	s.Connect = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		return u.Connect(ctx, s.Conf.APISocket())
	}
	s.After = func() {
		if after != nil {
			after()
		}
		u.Ended()
	}
	s.Disown = func() error {
		err := u.Restore()
		if disown != nil {
			err = errors.Join(err, disown())
		}
		return err
	}
}

// repairUplinks undoes what a killed manager left half done, before anything
// looks at the uplinks: their links may be missing.
func (o runOptions) repairUplinks(log logrus.FieldLogger) error {
	dir, err := filepath.Abs(o.runDir)
	if err != nil {
		return fmt.Errorf("--run-dir: %w", err)
	}
	_, specs, err := splitUplinks(o.uplinks)
	if err != nil {
		return err
	}
	d := o.dedicated
	d.Log, d.RunDir = log, dir
	u, err := uplink.New(d, specs)
	if err != nil {
		return err
	}
	if names, err := u.Saved(); err != nil || len(names) == 0 {
		return err
	}
	conf := startup.Config{RunDir: dir}
	unlock, err := supervise.Lock(conf)
	if err != nil {
		return err
	}
	defer unlock()
	if err := supervise.EndLeftover(conf); err != nil {
		return err
	}
	return u.Repair()
}

func restoreCommand(log *logrus.Logger) *cobra.Command {
	var runDir string
	var o uplink.Options
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Give the host back the uplinks that VPP had for itself",
		Long: `Undoes what "vpp-manager run --uplink NAME=dpdk" did to the node, where a killed
vpp-manager left it: the device gets its driver back, the link its name, MAC,
MTU, settings, addresses and routes. What they were is read from the host's
veth, and from the description that was stored before anything was touched.

It can be run again, and does nothing where nothing is to be restored. It
refuses while a vpp-manager runs in the run directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(runDir)
			if err != nil {
				return fmt.Errorf("--run-dir: %w", err)
			}
			// A VPP that a killed manager left behind would hold the devices.
			unlock, err := supervise.Lock(startup.Config{RunDir: dir})
			if err != nil {
				return err
			}
			defer unlock()
			if err := supervise.EndLeftover(startup.Config{RunDir: dir}); err != nil {
				return err
			}
			o.Log, o.RunDir = log, dir
			u, err := uplink.New(o, nil)
			if err != nil {
				return err
			}
			names, err := u.Saved()
			if err != nil {
				return err
			}
			if err := u.Restore(); err != nil {
				return err
			}
			for _, n := range names {
				fmt.Fprintf(cmd.OutOrStdout(), "restored: %s\n", n)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "run directory of the vpp-manager that had them")
	uplinkFlags(cmd, &o)
	return cmd
}

// uplinkFlags are those of run and restore alike.
func uplinkFlags(cmd *cobra.Command, o *uplink.Options) {
	f := cmd.Flags()
	f.StringVar(&o.Dir, "uplink-dir", uplink.DefaultDir, "folder for the descriptions of dedicated uplinks; it must outlive a crash")
	f.BoolVar(&o.NoIOMMU, "uplink-no-iommu", false, "use a dedicated uplink without an IOMMU: the device can then write to all memory")
}
