// A worker that takes part in what the first one computes.
self.onmessage = async ({ data: { name, module, memory, lock } }) => {
  const wasm = await import(`./wasm/${name}.js`);
  await wasm.default({ module_or_path: module, memory });
  const work = () => {
    self.postMessage("ready");
    wasm.work();
  };
  // The page notices that this lock is free when this worker is no more.
  if (navigator.locks) navigator.locks.request(lock, work);
  else work();
};
