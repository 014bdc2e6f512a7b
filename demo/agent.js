// The control connection to the local agent: JSON messages over a WebSocket at the page's own address.

export class AgentLink extends EventTarget {
  #socket = null;
  #tries = 0;
  #over = false;

  connect() {
    const address = new URL("control", location.href);
    address.protocol = "ws:";
    const socket = (this.#socket = new WebSocket(address));
    socket.onopen = () => {
      this.#tries = 0;
      this.#emit("up");
    };
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "replaced") this.#over = true;
      this.#emit(message.type, message);
    };
    socket.onclose = () => {
      if (this.#over) return;
      this.#emit("down");
      setTimeout(() => this.connect(), Math.min(500 * 2 ** this.#tries++, 5000));
    };
  }

  send(type, values = {}) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type, ...values }));
  }

  on(type, listener) {
    this.addEventListener(type, (event) => listener(event.detail));
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
