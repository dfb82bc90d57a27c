package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
)

// runOptions are run's flags.
type runOptions struct {
	vpp, runDir, heap, extra, logLevel string
	workers, buffers                   int
	coreDumps                          bool
	grace, startTimeout                time.Duration
}

func runCommand(log *logrus.Logger) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Start VPP, wait until its API answers, restart it when it dies",
		Long: `Writes startup.conf into the run directory, starts VPP there, and prints one
line to standard output each time its API answers:

    vpp ready: pid 4711 version 25.10-release socket /run/vpp/api.sock

Ends VPP and itself on SIGTERM and SIGINT. In the run directory: api.sock,
cli.sock (for vppctl -s), stats.sock, vpp.log, vpp.pid, startup.conf.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := logrus.ParseLevel(o.logLevel)
			if err != nil {
				return fmt.Errorf("--log-level: %w", err)
			}
			log.SetLevel(level)
			s, err := o.supervisor(log)
			if err != nil {
				return err
			}
			s.Ready = func(pid int, version string) {
				fmt.Fprintf(cmd.OutOrStdout(), "vpp ready: pid %d version %s socket %s\n", pid, version, s.Conf.APISocket())
			}
			return s.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.vpp, "vpp", "", "VPP's executable (default: $"+find.Env+", else vpp on PATH)")
	f.StringVar(&o.runDir, "run-dir", "/run/vpp", "folder for sockets, log and configuration")
	f.IntVar(&o.workers, "workers", 0, "threads beside the main one; 0: the main thread forwards")
	f.StringVar(&o.heap, "main-heap", "256M", "size of VPP's heap")
	f.IntVar(&o.buffers, "buffers", 32768, "packet buffers; a pod on AF_XDP takes about 512")
	f.StringVar(&o.extra, "extra", "", "file with more configuration, appended to startup.conf")
	f.BoolVar(&o.coreDumps, "core-dumps", false, "let VPP dump core when it crashes")
	f.StringVar(&o.logLevel, "log-level", "info", "how much this program logs")
	f.DurationVar(&o.grace, "stop-timeout", 5*time.Second, "time between SIGTERM and SIGKILL")
	f.DurationVar(&o.startTimeout, "start-timeout", 30*time.Second, "time for VPP's API to answer after a start")
	return cmd
}

// supervisor checks the flags.
func (o runOptions) supervisor(log *logrus.Logger) (*supervise.Supervisor, error) {
	v, err := find.Locate(o.vpp)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.runDir)
	if err != nil {
		return nil, fmt.Errorf("--run-dir: %w", err)
	}
	if _, ok := startup.ParseSize(o.heap); !ok {
		return nil, fmt.Errorf("--main-heap: %q is not a size such as 256M", o.heap)
	}
	if o.buffers < 1024 {
		return nil, fmt.Errorf("--buffers: %d is less than 1024", o.buffers)
	}
	if o.workers < 0 {
		return nil, fmt.Errorf("--workers: %d is less than 0", o.workers)
	}
	conf := startup.Config{
		RunDir: dir, Workers: o.workers, MainHeap: o.heap, Buffers: o.buffers,
		Plugins: startup.InstalledPlugins(v.Path, startup.DefaultPlugins()),
	}
	if o.extra != "" {
		extra, err := os.ReadFile(o.extra)
		if err != nil {
			return nil, fmt.Errorf("--extra: %w", err)
		}
		conf.Extra = string(extra)
	}
	return &supervise.Supervisor{
		Path: v.Path, Conf: conf, CoreDumps: o.coreDumps,
		HugePages: func() startup.HugePages { return startup.ReadHugePages("/") },
		Grace:     o.grace, StartTimeout: o.startTimeout, Log: log,
	}, nil
}

func findCommand() *cobra.Command {
	var explicit string
	cmd := &cobra.Command{
		Use:   "find",
		Short: "Print which VPP would be used, and its version",
		Long: `Starts the VPP that would be used, with nothing to do, to see that it works
here and has the API that Sidewinder needs. Prints its path and version. The
exit status is 1 when none is usable; the reason is on standard error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := find.Find(cmd.Context(), explicit, binapi.GroupAFPacket, binapi.GroupAFXDP)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", v.Path, v.Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&explicit, "vpp", "", "VPP's executable (default: $"+find.Env+", else vpp on PATH)")
	return cmd
}
