// The service liger.v1.Generation.

#ifndef LIGER_SERVER_GENERATION_SERVICE_H_
#define LIGER_SERVER_GENERATION_SERVICE_H_

#include "liger/v1/generation.grpc.pb.h"
#include "server/generation_call.h"

namespace liger {

// gRPC's threads validate, tokenize what is short, and submit; they never wait for the engine.
class GenerationService final : public v1::Generation::CallbackService {
 public:
  // `environment` outlives the service.
  explicit GenerationService(const CallEnvironment* environment) : environment_(*environment) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* message) override;
  grpc::ServerUnaryReactor* Complete(grpc::CallbackServerContext* context,
                                     const v1::GenerateRequest* message,
                                     v1::CompleteResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* message,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* message,
                                       v1::DetokenizeResponse* response) override;

 private:
  const CallEnvironment& environment_;
};

}  // namespace liger

#endif  // LIGER_SERVER_GENERATION_SERVICE_H_
