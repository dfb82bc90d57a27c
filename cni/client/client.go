// Package client speaks to the agent over its unix socket: for the CNI plugin,
// the operator's tool and the lab. The wire format is package cni/api.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

// DialTimeout is how long connecting to the socket may take. A listening agent
// answers in microseconds; only a full backlog of a hung one reaches this.
const DialTimeout = 500 * time.Millisecond

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 20

// ErrNotFound: the agent does not know the endpoint.
var ErrNotFound = errors.New("the agent does not know this endpoint")

// UnreachableError: no answer came from the agent. What it holds is unknown.
type UnreachableError struct {
	Socket string
	// Absent: there is no socket at all, so no agent is running and none has
	// crashed (an agent that ends in order takes its socket with it).
	Absent bool
	Err    error
}

func (e *UnreachableError) Error() string {
	why, remedy := e.Err.Error(), "look at the agent's log on this node"
	var ne net.Error
	switch {
	case e.Absent:
		why = "there is no such socket: the Sidewinder agent is not running on this node"
		remedy = "start the agent, or correct \"socket\" in the network configuration"
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		why = "connection refused: the Sidewinder agent has stopped"
		remedy = "restart the agent and look at its log"
	case errors.Is(e.Err, syscall.EACCES), errors.Is(e.Err, syscall.EPERM):
		why = "permission denied"
		remedy = "run as root"
	case errors.Is(e.Err, context.DeadlineExceeded), errors.As(e.Err, &ne) && ne.Timeout():
		why = "the Sidewinder agent does not answer in time"
		remedy = "look at the agent's log and restart it if it hangs"
	}
	return fmt.Sprintf("agent socket %s: %s (%s)", e.Socket, why, remedy)
}

// Unwrap lets errors.Is see the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Client makes calls to one agent. It is safe for concurrent use. Every call
// answers a *UnreachableError when no answer came, and an *api.Error when the
// agent refused. Deadlines are the caller's, by context.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client for the agent behind the socket; nothing is dialled yet.
// An empty path means api.DefaultSocket.
func New(socket string) *Client {
	if socket == "" {
		socket = api.DefaultSocket
	}
	dialer := &net.Dialer{Timeout: DialTimeout}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
		MaxIdleConns:       2,
		IdleConnTimeout:    10 * time.Second,
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Config reads what the plugin needs to know to make a pod's interface.
func (c *Client) Config(ctx context.Context) (api.NodeConfig, error) {
	var out api.NodeConfig
	return out, c.call(ctx, http.MethodGet, api.PathConfig, nil, &out)
}

// Endpoints lists the endpoints that the agent knows, by ID.
func (c *Client) Endpoints(ctx context.Context) ([]api.Endpoint, error) {
	var out []api.Endpoint
	return out, c.call(ctx, http.MethodGet, api.PathEndpoints, nil, &out)
}

// Endpoint reads one endpoint; ErrNotFound when the agent does not know it.
func (c *Client) Endpoint(ctx context.Context, containerID, ifName string) (api.Endpoint, error) {
	var out api.Endpoint
	return out, c.call(ctx, http.MethodGet, endpointPath(containerID, ifName), nil, &out)
}

// AddEndpoint hands over an endpoint; it answers when the dataplane holds it.
// After an error the agent has forgotten it again, unless it was unreachable.
func (c *Client) AddEndpoint(ctx context.Context, ep api.Endpoint) error {
	return c.call(ctx, http.MethodPost, api.PathEndpoints, ep, nil)
}

// DeleteEndpoint makes the agent forget an endpoint; it answers when the
// dataplane has let go of it. An unknown one is no error.
func (c *Client) DeleteEndpoint(ctx context.Context, containerID, ifName string) error {
	err := c.call(ctx, http.MethodDelete, endpointPath(containerID, ifName), nil, nil)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Ready asks whether the agent can wire pods; an *api.Error says why not.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, api.PathReady, nil, nil)
}

// Status reads the agent's status into a value of the caller's (package
// agent/status has the type; this package does not depend on it).
func (c *Client) Status(ctx context.Context, into any) error {
	return c.call(ctx, http.MethodGet, api.PathStatus, nil, into)
}

// Resync asks for a full comparison with the dataplane and waits for it.
func (c *Client) Resync(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, api.PathResync, nil, nil)
}

func endpointPath(containerID, ifName string) string {
	return api.PathEndpoints + "/" + url.PathEscape(containerID) + "/" + url.PathEscape(ifName)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("request %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return fmt.Errorf("request %s %s: %w", method, path, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	if resp.StatusCode/100 != 2 {
		return answerError(resp.StatusCode, method, path, raw)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("agent socket %s: answer to %s %s cannot be read: %w (are agent and caller of the same version?)", c.socket, method, path, err)
	}
	return nil
}

func (c *Client) unreachable(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return &UnreachableError{Socket: c.socket, Absent: errors.Is(err, syscall.ENOENT), Err: err}
}

// notFoundError is an answer that errors.Is knows as ErrNotFound and errors.As
// as an *api.Error.
type notFoundError struct{ answer *api.Error }

func (e notFoundError) Error() string   { return e.answer.Error() }
func (e notFoundError) Unwrap() []error { return []error{ErrNotFound, e.answer} }

func answerError(code int, method, path string, raw []byte) error {
	e := &api.Error{}
	if err := json.Unmarshal(raw, e); err != nil || e.Reason == "" {
		e = &api.Error{
			Object: method + " " + path,
			Reason: fmt.Sprintf("the agent answered %d %s: %s", code, http.StatusText(code), strings.TrimSpace(string(raw[:min(len(raw), 200)]))),
		}
	}
	if code == http.StatusNotFound && strings.HasPrefix(path, api.PathEndpoints+"/") {
		return notFoundError{e}
	}
	return e
}
