// The news of a page: a stream of events from the server.

// The address holds the token; the cookie has it now.
history.replaceState(null, "", location.pathname);

// Gives each event to `show`, and calls `lost` where there is no connection.
export function follow(show, lost) {
  let stream = null;
  function connect() {
    stream = new EventSource("events");
    stream.onmessage = (event) => show(JSON.parse(event.data));
    stream.onerror = lost;
  }
  // A browser gives few connections to a server: a tab that nobody sees holds none.
  document.addEventListener("visibilitychange", () => {
    stream?.close();
    if (!document.hidden) connect();
  });
  connect();
}
