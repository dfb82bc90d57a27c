package cniserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidewinder-net/sidewinder/cni/api"
)

// Limits of a request.
const (
	maxBody     = 256 << 10
	maxHeader   = 16 << 10
	readTimeout = 5 * time.Second
	idleTimeout = 30 * time.Second
)

// handler answers with a value to be sent as JSON, or an error.
type handler func(r *http.Request) (any, error)

// httpServer serves with base as the parent of every request's context.
func (s *Server) httpServer(base context.Context) *http.Server {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET " + api.PathConfig:      s.getConfig,
		"GET " + api.PathEndpoints:   s.getEndpoints,
		"POST " + api.PathEndpoints:  s.postEndpoint,
		"GET " + api.PathEndpoint:    s.getEndpoint,
		"DELETE " + api.PathEndpoint: s.deleteEndpoint,
		"GET " + api.PathReady:       s.getReady,
		"GET " + api.PathStatus:      s.getStatus,
		"POST " + api.PathResync:     s.postResync,
		"/":                          unknownPath,
	} {
		mux.Handle(pattern, s.wrap(h))
	}
	return &http.Server{
		Handler: mux,
		// No ReadTimeout or WriteTimeout: they would end a request that waits
		// for the dataplane. Reading the body has its own deadline.
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          log.New(logWriter{s.log}, "", 0),
	}
}

// wrap turns a handler's answer, error or panic into a response.
func (s *Server) wrap(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		code, body := s.run(h, w, r)
		s.log.WithFields(logrus.Fields{"method": r.Method, "path": r.URL.Path, "code": code, "duration": time.Since(start)}).Debug("request")
		raw, err := json.Marshal(body)
		if err != nil {
			code, raw = http.StatusInternalServerError, []byte(`{"reason":"the answer cannot be written as JSON"}`)
			s.log.WithError(err).WithField("path", r.URL.Path).Error("answer cannot be written")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write(append(raw, '\n')) // The caller may be gone.
	})
}

func (s *Server) run(h handler, w http.ResponseWriter, r *http.Request) (code int, body any) {
	defer func() {
		if p := recover(); p != nil {
			s.log.WithFields(logrus.Fields{"path": r.URL.Path, "stack": string(debug.Stack())}).Errorf("panic in a request: %v", p)
			code = http.StatusInternalServerError
			body = &api.Error{Object: r.Method + " " + r.URL.Path, Reason: fmt.Sprintf("internal error: %v", p), Remedy: "this is a bug: report it with the agent's log"}
		}
	}()
	// The whole body is read first, with a deadline of its own: only then does
	// the HTTP server watch for the caller going away.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(readTimeout))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		code = http.StatusBadRequest
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			code = http.StatusRequestEntityTooLarge
			err = fmt.Errorf("the body is larger than %d bytes", tooBig.Limit)
		}
		return code, &api.Error{Object: r.Method + " " + r.URL.Path, Reason: err.Error()}
	}
	r.Body = io.NopCloser(strings.NewReader(string(raw)))
	out, err := h(r)
	if err == nil {
		if out == nil {
			out = struct{}{}
		}
		return http.StatusOK, out
	}
	var he *httpError
	if errors.As(err, &he) {
		return he.code, he.answer
	}
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Reason: err.Error()}
	}
	return http.StatusInternalServerError, e
}

func (s *Server) getConfig(*http.Request) (any, error) {
	c, err := s.opt.Config()
	if err != nil {
		return nil, unready(err)
	}
	return c, nil
}

func (s *Server) getEndpoints(*http.Request) (any, error) { return s.list(), nil }

func (s *Server) postEndpoint(r *http.Request) (any, error) {
	var ep api.Endpoint
	// Unknown fields are let pass: the plugin may be newer than the agent.
	if err := json.NewDecoder(r.Body).Decode(&ep); err != nil {
		e := api.Error{Object: "endpoint", Reason: err.Error()}
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			e.Field = te.Field
		}
		return nil, fail(http.StatusBadRequest, e)
	}
	return nil, s.add(r.Context(), ep)
}

func (s *Server) getEndpoint(r *http.Request) (any, error) {
	id := requestID(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ep, ok := s.records[id]; ok {
		return ep, nil
	}
	return nil, fail(http.StatusNotFound, api.Error{Object: "endpoint " + id, Reason: "the agent does not know it"})
}

func (s *Server) deleteEndpoint(r *http.Request) (any, error) {
	return nil, s.remove(r.Context(), requestID(r))
}

func (s *Server) getReady(*http.Request) (any, error) {
	if err := s.opt.Ready(); err != nil {
		return nil, unready(err)
	}
	return nil, nil
}

func (s *Server) getStatus(*http.Request) (any, error) { return s.opt.Status(), nil }

func (s *Server) postResync(r *http.Request) (any, error) {
	if err := s.opt.Resync(r.Context()); err != nil {
		return nil, fail(http.StatusBadGateway, api.Error{Object: "resync", Reason: err.Error(), TryAgain: true})
	}
	return nil, nil
}

func unknownPath(r *http.Request) (any, error) {
	return nil, fail(http.StatusNotFound, api.Error{
		Object: r.Method + " " + r.URL.Path, Reason: "there is no such request",
		Remedy: "use a plugin and tools of the agent's version",
	})
}

func requestID(r *http.Request) string {
	return r.PathValue("container") + "/" + r.PathValue("interface")
}

// logWriter passes the HTTP server's own complaints on.
type logWriter struct{ log logrus.FieldLogger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Warn(strings.TrimSpace(string(p)))
	return len(p), nil
}
