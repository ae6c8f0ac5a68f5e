package main

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"sort"
	"sync"
	"time"
	"unicode/utf8"
)

// Recorded is a request as it arrived at a listener of our own.
type Recorded struct {
	Method     string      `json:"method"`
	Target     string      `json:"target"`
	Headers    [][2]string `json:"headers"`
	Body       *string     `json:"body,omitempty"`
	BodyBase64 string      `json:"body_base64,omitempty"`
	Time       int64       `json:"time"`
}

// record takes the steps against a listener that notes what arrives, one request for each.
func record(steps []Step, by clients) ([]Recorded, []Outcome) {
	var lock sync.Mutex
	arrived := []Recorded{}
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		arrived = append(arrived, asArrived(request))
		_, _ = answer.Write([]byte("null")) // which decodes into anything
	}))
	defer server.Close()
	outcomes := make([]Outcome, len(steps))
	for i, step := range steps {
		outcomes[i] = step.take(server.URL, by)
	}
	return arrived, outcomes
}

func asArrived(request *http.Request) Recorded {
	recorded := Recorded{
		Method:  request.Method,
		Target:  request.RequestURI, // raw, where request.URL is parsed
		Headers: [][2]string{{"Host", request.Host}},
		Time:    time.Now().Unix(),
	}
	for _, coding := range request.TransferEncoding { // which Go takes out of the header
		recorded.Headers = append(recorded.Headers, [2]string{"Transfer-Encoding", coding})
	}
	for name, values := range request.Header {
		for _, value := range values {
			recorded.Headers = append(recorded.Headers, [2]string{name, value})
		}
	}
	sort.Slice(recorded.Headers, func(i, j int) bool { return recorded.Headers[i][0] < recorded.Headers[j][0] })
	body, err := io.ReadAll(request.Body)
	switch {
	case err != nil:
		panic(err) // a listener on this machine that loses bytes makes no vector
	case utf8.Valid(body):
		text := string(body)
		recorded.Body = &text
	default:
		recorded.BodyBase64 = base64.StdEncoding.EncodeToString(body)
	}
	return recorded
}
