// The search runs in a worker, and a browser starts none for a site that is opened as files. There, a hidden frame with
// a worker's functions does the same.
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.appendChild(this.frame);
    const inside = this.frame.contentWindow;
    const script = JSON.stringify(String(url)).replaceAll("<", "\\u003c");
    inside.document.open();
    inside.document.write(`<!doctype html><body><script>
      postMessage = message => parent.postMessage(message, "*");
      const load = url => new Promise((done, failed) => {
        document.body.appendChild(Object.assign(document.createElement("script"), {src: url, onload: done, onerror: failed}));
      });
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() => load(url)), Promise.resolve());
      loaded = load(${script});
    </scr` + `ipt></body>`);
    inside.document.close();
    this.ready = inside.loaded;
    this.forward = event => {
      if (event.source === inside) {
        this.dispatchEvent(new MessageEvent("message", {data: event.data}));
        this.onmessage?.(event);
      }
    };
    addEventListener("message", this.forward);
  }

  postMessage(message) {
    const inside = this.frame.contentWindow;
    this.ready.then(() => inside.dispatchEvent(new MessageEvent("message", {data: structuredClone(message)})));
  }

  terminate() {
    removeEventListener("message", this.forward);
    this.frame.remove();
  }
}

if (location.protocol === "file:") window.Worker = FrameWorker;
