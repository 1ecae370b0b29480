/**
 * Spans to a collector of OpenTelemetry, over OTLP/HTTP in JSON. It needs `@effect/opentelemetry`, which is installed by who wants
 * traces: the module is loaded when a collector is configured.
 */
import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import * as OtlpTracer from "@effect/opentelemetry/OtlpTracer"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { version } from "./Phase.ts"

/** How long a collector may take to answer, in ms. What isn't taken by then is given up: spans that wait are in memory. */
export const exportMillisMax = 10_000

const layerClient = Layer.map(
  FetchHttpClient.layer,
  (context) =>
    Context.make(
      HttpClient.HttpClient,
      HttpClient.transform(Context.get(context, HttpClient.HttpClient), (sent, request) =>
        Effect.timeoutFail(sent, {
          duration: exportMillisMax,
          onTimeout: () => new HttpClientError.RequestError({ request, reason: "Transport", description: "no answer" })
        }))
    )
)

/** Exports to `/v1/traces` of a collector's base URL, as in `http://localhost:4318`. */
export const layer = (options: { readonly url: string; readonly serviceName: string }): Layer.Layer<never> =>
  OtlpTracer.layer({
    url: `${options.url.replace(/\/+$/, "")}/v1/traces`,
    resource: { serviceName: options.serviceName, serviceVersion: version }
  }).pipe(Layer.provide([layerClient, OtlpSerialization.layerJson]))
