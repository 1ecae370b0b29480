/**
 * Waits until no other tab has this page open. A device is one replica: two tabs over one database would give different
 * writes the same numbers. Where the browser has no locks (without HTTPS, other than on this machine) nobody is kept out.
 */
export const onlyTab = (onWaiting: () => void): Promise<void> =>
  new Promise((resolve, reject) => {
    if (!("locks" in navigator)) return resolve()
    // Held for as long as the page is there.
    const hold = (): Promise<never> => {
      resolve()
      return new Promise(() => {})
    }
    navigator.locks.request("topgun-demo", { ifAvailable: true }, (lock) => {
      if (lock !== null) return hold()
      onWaiting()
      navigator.locks.request("topgun-demo", hold).catch(reject)
      return undefined
    }).catch(reject)
  })
