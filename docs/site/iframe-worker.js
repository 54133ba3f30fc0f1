/* iframe-worker for pages opened as files: browsers start no Worker there, so the search runs in a hidden frame.
   The theme's own stand-in for this lies on another host, and this site asks no other host for anything. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      // What the script posts arrives here, as a worker's messages would.
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = (...urls) => Promise.all(urls.map(one => this.load(one)));
      this.load(new URL(url, location.href)).then(() => {
        this.ready = true;
        this.waiting.splice(0).forEach(data => this.postMessage(data));
      }, () => this.dispatchEvent(new ErrorEvent("error", { message: `cannot load ${url}` })));
    }

    load(url) {
      const script = this.frame.contentDocument.createElement("script");
      script.src = url;
      this.frame.contentDocument.body.append(script);
      return new Promise((done, failed) => { script.onload = done; script.onerror = failed; });
    }

    postMessage(data) {
      if (!this.ready) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() { this.frame.remove(); }
  };
}
